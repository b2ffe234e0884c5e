//! Watermarks: "no row with an event time at or below this follows".
//!
//! Semantics are those of the Dataflow Model (Akidau et al., VLDB 2015) and of Flink's
//! watermarks, with `<=` as Flink has it: a row with `time <= watermark` is late.

use serde::{Deserialize, Serialize};

use super::Micros;

/// A promise that no row with an event time at or below it follows on its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Watermark(pub Micros);

impl Watermark {
    /// Nothing is promised yet.
    pub const MIN: Watermark = Watermark(Micros::MIN);
    /// No row follows at all: the end of a bounded input.
    pub const MAX: Watermark = Watermark(Micros::MAX);
}

/// A watermark that only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RisingWatermark(Watermark);

impl Default for RisingWatermark {
    fn default() -> Self {
        RisingWatermark(Watermark::MIN)
    }
}

impl RisingWatermark {
    /// The highest watermark so far.
    pub fn current(self) -> Watermark {
        self.0
    }

    /// Rises to `candidate` and returns it when it is higher; otherwise nothing happens.
    pub fn rise(&mut self, candidate: Watermark) -> Option<Watermark> {
        (candidate > self.0).then(|| {
            self.0 = candidate;
            candidate
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Input {
    watermark: RisingWatermark,
    active: bool,
    /// Whether it is one that never promises anything before its end.
    timeless: bool,
}

impl Input {
    /// Whether it has promised that nothing follows.
    fn has_ended(&self) -> bool {
        self.watermark.current() == Watermark::MAX
    }

    /// Whether the others wait for it.
    fn takes_part(&self) -> bool {
        self.active && !self.timeless && !self.has_ended()
    }
}

/// The combined watermark of several inputs: the minimum over those that take part, which idle
/// ones do not, nor those that have ended (at [`Watermark::MAX`]), nor those that have no watermarks
/// beside others that have.
///
/// When none takes part, the combination has ended if all have, and is idle otherwise: an input
/// that ended says nothing about one that is silent, so the watermark stays where it is.
#[derive(Clone, Debug, Default)]
pub struct InputWatermarks {
    inputs: Vec<Input>,
    combined: RisingWatermark,
}

impl InputWatermarks {
    /// `count` active inputs, none of which has promised anything.
    pub fn new(count: usize) -> Self {
        let input = Input { watermark: RisingWatermark::default(), active: true, timeless: false };
        InputWatermarks { inputs: vec![input; count], combined: RisingWatermark::default() }
    }

    /// Says that input `index` promises nothing before its end, and is not waited for. To be said
    /// first, and not of all.
    pub fn set_timeless(&mut self, index: usize) {
        if let Some(input) = self.inputs.get_mut(index) {
            input.timeless = true;
        }
    }

    /// Input `index` promises `watermark`. Returns the combined watermark when it rose.
    pub fn update(&mut self, index: usize, watermark: Watermark) -> Option<Watermark> {
        self.inputs.get_mut(index)?.watermark.rise(watermark)?;
        self.recombine()
    }

    /// Input `index` becomes idle or active. Returns the combined watermark when it rose.
    pub fn set_active(&mut self, index: usize, active: bool) -> Option<Watermark> {
        self.inputs.get_mut(index)?.active = active;
        self.recombine()
    }

    /// Whether none takes part, though some have not ended.
    pub fn is_idle(&self) -> bool {
        !self.inputs.iter().any(Input::takes_part) && !self.have_ended()
    }

    /// The combined watermark.
    pub fn current(&self) -> Watermark {
        self.combined.current()
    }

    fn have_ended(&self) -> bool {
        self.inputs.iter().all(Input::has_ended)
    }

    fn recombine(&mut self) -> Option<Watermark> {
        let taking_part = self.inputs.iter().filter(|input| input.takes_part());
        let lowest = taking_part.map(|input| input.watermark.current()).min();
        self.combined.rise(lowest.or_else(|| self.have_ended().then_some(Watermark::MAX))?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_watermark_never_goes_back() {
        let mut watermark = RisingWatermark::default();
        assert_eq!(watermark.rise(Watermark(5)), Some(Watermark(5)));
        assert_eq!(watermark.rise(Watermark(3)), None);
        assert_eq!(watermark.current(), Watermark(5));
    }

    #[test]
    fn the_minimum_is_over_active_inputs_and_does_not_fall_when_one_returns() {
        let mut inputs = InputWatermarks::new(2);
        assert_eq!(inputs.update(0, Watermark(10)), None);
        assert_eq!(inputs.set_active(1, false), Some(Watermark(10)));
        assert_eq!(inputs.set_active(1, true), None);
        assert_eq!(inputs.update(1, Watermark(4)), None);
        assert_eq!(inputs.current(), Watermark(10));
        assert_eq!(inputs.update(1, Watermark(20)), None);
        assert_eq!(inputs.update(0, Watermark(15)), Some(Watermark(15)));
    }

    #[test]
    fn an_input_that_has_ended_takes_no_part() {
        let mut inputs = InputWatermarks::new(3);
        inputs.update(0, Watermark(10));
        inputs.update(1, Watermark(20));
        assert_eq!(inputs.set_active(2, false), Some(Watermark(10)));
        assert_eq!(inputs.update(0, Watermark::MAX), Some(Watermark(20)), "the others go on without it");
        assert_eq!(inputs.set_active(1, false), None, "the others are idle, not at their end");
        assert!(inputs.is_idle());
        assert_eq!(inputs.set_active(2, true), None);
        assert!(!inputs.is_idle());
        assert_eq!(inputs.update(2, Watermark(15)), None, "it never goes back");
        assert_eq!(inputs.update(2, Watermark(30)), Some(Watermark(30)));
    }

    #[test]
    fn the_end_is_when_all_have_ended_idle_or_not() {
        let mut inputs = InputWatermarks::new(2);
        inputs.update(0, Watermark::MAX);
        inputs.set_active(1, false);
        assert!(inputs.is_idle());
        assert_eq!(inputs.update(1, Watermark::MAX), Some(Watermark::MAX));
        assert!(!inputs.is_idle());
    }

    #[test]
    fn an_input_without_watermarks_is_waited_for_at_the_end_only() {
        let mut inputs = InputWatermarks::new(2);
        inputs.set_timeless(1);
        assert_eq!(inputs.update(0, Watermark(10)), Some(Watermark(10)));
        assert_eq!(inputs.update(0, Watermark::MAX), None);
        assert_eq!(inputs.update(1, Watermark::MAX), Some(Watermark::MAX));
    }

    /// What happens to an input.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Watermark(i64),
        Active(bool),
        End,
    }

    fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
        let step = prop_oneof![
            4 => (0i64..50).prop_map(Step::Watermark),
            2 => any::<bool>().prop_map(Step::Active),
            1 => Just(Step::End),
        ];
        prop::collection::vec((0usize..4, step), 0..60)
    }

    proptest! {
        /// Whatever comes in whatever order: the combination is never above an input that takes
        /// part and did not come back with less, and at the end only when every input is.
        #[test]
        fn no_order_of_ends_and_silences_overtakes_an_input_that_takes_part(steps in steps()) {
            let mut inputs = InputWatermarks::new(4);
            let (mut own, mut active) = ([i64::MIN; 4], [true; 4]);
            let mut before = Watermark::MIN;
            for (index, step) in steps {
                match step {
                    Step::Watermark(at) => {
                        own[index] = own[index].max(at);
                        inputs.update(index, Watermark(at));
                    }
                    Step::Active(is_active) => {
                        active[index] = is_active;
                        inputs.set_active(index, is_active);
                    }
                    Step::End => {
                        own[index] = i64::MAX;
                        inputs.update(index, Watermark::MAX);
                    }
                }
                let part = (0..4).filter(|&at| active[at] && own[at] < i64::MAX);
                let lowest = part.map(|at| own[at]).min();
                let ended = own.iter().all(|&at| at == i64::MAX);
                let expected = lowest.or(ended.then_some(i64::MAX)).map_or(before, |at| before.max(Watermark(at)));
                prop_assert_eq!(inputs.current(), expected);
                prop_assert_eq!(inputs.is_idle(), lowest.is_none() && !ended);
                prop_assert_eq!(inputs.current() == Watermark::MAX, ended);
                before = inputs.current();
            }
        }
    }
}
