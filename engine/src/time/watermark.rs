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
}

/// The combined watermark of several inputs: the minimum over the active ones.
///
/// When all are idle the combination is idle, and the watermark stays where it is.
#[derive(Clone, Debug, Default)]
pub struct InputWatermarks {
    inputs: Vec<Input>,
    combined: RisingWatermark,
}

impl InputWatermarks {
    /// `count` active inputs, none of which has promised anything.
    pub fn new(count: usize) -> Self {
        let input = Input { watermark: RisingWatermark::default(), active: true };
        InputWatermarks { inputs: vec![input; count], combined: RisingWatermark::default() }
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

    /// Whether no input is active.
    pub fn is_idle(&self) -> bool {
        !self.inputs.iter().any(|input| input.active)
    }

    /// The combined watermark.
    pub fn current(&self) -> Watermark {
        self.combined.current()
    }

    fn recombine(&mut self) -> Option<Watermark> {
        let lowest =
            self.inputs.iter().filter(|input| input.active).map(|input| input.watermark.current()).min()?;
        self.combined.rise(lowest)
    }
}

#[cfg(test)]
mod tests {
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
}
