//! How watermarks are made of the event times of rows: at a source for each split, behind an
//! operator for each of its instances.
//!
//! The generators are those of Flink (`WatermarkStrategy`): bounded out-of-orderness, monotonous
//! times, marks in the rows (punctuated), and one's own.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{RecordBatch, TimestampMicrosecondArray};

use super::{Micros, RisingWatermark, Watermark};
use crate::Result;

/// Makes the watermark of one split, or of one instance of an operator, of its rows.
pub trait WatermarkGenerator: Send {
    /// Takes rows in, in their order; `times` are their event times, null for rows without one.
    /// Returns up to which time no row follows any more, as far as it says so now; what is not above
    /// what it said before changes nothing.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn observe(&mut self, rows: &RecordBatch, times: &TimestampMicrosecondArray)
    -> Result<Option<Watermark>>;
}

/// What happens to a row whose event time lies too far ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnAhead {
    /// It is dropped.
    Drop,
    /// It goes to an output of its own: `Stream::ahead`.
    DeadLetter,
    /// Its time becomes the latest that is allowed.
    Clamp,
}

/// What a row may lie ahead of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AheadOf {
    /// Processing time: the clock of this machine.
    Clock,
    /// The other rows of its split: see [`RowsReached`](super::RowsReached).
    Rows,
}

/// A guard against clocks that go fast: a row from the future would close all windows up to its
/// time, and make every other row late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxAhead {
    /// How far event time may lie ahead, in microseconds.
    pub by: Micros,
    /// Of what.
    pub of: AheadOf,
    /// What happens to a row that lies further ahead. It is counted in `rows_ahead_total`.
    pub then: OnAhead,
}

type MakeGenerator = Arc<dyn Fn() -> Box<dyn WatermarkGenerator> + Send + Sync>;
type Marks = Arc<dyn Fn(&RecordBatch) -> Result<TimestampMicrosecondArray> + Send + Sync>;

#[derive(Clone)]
enum Generators {
    Bounded(Micros),
    Punctuated { name: Arc<str>, marks: Marks },
    Custom { name: Arc<str>, make: MakeGenerator },
}

/// How watermarks are made, and when a split without rows is idle.
#[derive(Clone)]
pub struct WatermarkStrategy {
    generators: Generators,
    /// A split that was asked for rows, and had none for this long, is idle and holds nobody back.
    /// What is merely slow is not: see [`Silence`](super::Silence). Microseconds of processing
    /// time; `None`: a split is never idle by itself.
    pub idle_after: Option<Micros>,
    /// Guards against rows from the future; `None`: every row counts.
    pub max_ahead: Option<MaxAhead>,
}

impl WatermarkStrategy {
    /// A row may come up to `bound` microseconds of event time after a later one.
    pub fn bounded_out_of_order(bound: Micros) -> Self {
        Self::of(Generators::Bounded(bound))
    }

    /// Times never fall within a split.
    pub fn monotonous() -> Self {
        Self::bounded_out_of_order(0)
    }

    /// Rows say how far time has come: `marks` gives for each row of a batch the time up to which no
    /// row follows it, or null. `name` says for people, and for the graph's fingerprint, which marks
    /// these are.
    pub fn punctuated(
        name: &str,
        marks: impl Fn(&RecordBatch) -> Result<TimestampMicrosecondArray> + Send + Sync + 'static,
    ) -> Self {
        Self::of(Generators::Punctuated { name: name.into(), marks: Arc::new(marks) })
    }

    /// Watermarks of one's own making: `make` is called for each split. `name` as for
    /// [`WatermarkStrategy::punctuated`].
    pub fn custom(
        name: &str,
        make: impl Fn() -> Box<dyn WatermarkGenerator> + Send + Sync + 'static,
    ) -> Self {
        Self::of(Generators::Custom { name: name.into(), make: Arc::new(make) })
    }

    fn of(generators: Generators) -> Self {
        WatermarkStrategy { generators, idle_after: None, max_ahead: None }
    }

    /// Makes splits idle after `after` microseconds of being asked without having rows.
    #[must_use]
    pub fn idle_after(mut self, after: Micros) -> Self {
        self.idle_after = Some(after);
        self
    }

    /// Guards against rows whose time lies more than `by` microseconds ahead of processing time.
    #[must_use]
    pub fn max_ahead(mut self, by: Micros, then: OnAhead) -> Self {
        self.max_ahead = Some(MaxAhead { by, of: AheadOf::Clock, then });
        self
    }

    /// Guards against rows whose time lies more than `by` microseconds ahead of the other rows of
    /// their split.
    #[must_use]
    pub fn max_ahead_of_rows(mut self, by: Micros, then: OnAhead) -> Self {
        self.max_ahead = Some(MaxAhead { by, of: AheadOf::Rows, then });
        self
    }

    /// Whether rows that lie too far ahead go to an output of their own.
    pub fn puts_ahead_aside(&self) -> bool {
        self.max_ahead.is_some_and(|max| max.then == OnAhead::DeadLetter)
    }

    /// How far a row may come after a later one, in microseconds; `None`: only the rows say.
    pub fn out_of_order(&self) -> Option<Micros> {
        match self.generators {
            Generators::Bounded(bound) => Some(bound),
            Generators::Punctuated { .. } | Generators::Custom { .. } => None,
        }
    }

    fn generator(&self) -> Generator {
        match &self.generators {
            Generators::Bounded(bound) => Generator::Bounded(*bound),
            Generators::Punctuated { marks, .. } => Generator::OfRows(Box::new(Punctuated(marks.clone()))),
            Generators::Custom { make, .. } => Generator::OfRows(make()),
        }
    }
}

/// How they are made, without idleness.
impl std::fmt::Display for WatermarkStrategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.generators {
            Generators::Bounded(bound) => write!(f, "out of order by {bound} us"),
            Generators::Punctuated { name, .. } => write!(f, "punctuated by {name}"),
            Generators::Custom { name, .. } => write!(f, "custom {name}"),
        }
    }
}

impl std::fmt::Debug for WatermarkStrategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}, idle after {:?} us", self.idle_after)?;
        self.max_ahead.map_or(Ok(()), |max| write!(f, ", {max:?}"))
    }
}

enum Generator {
    /// Looks at times only: a row whose time equals the highest minus the bound is still on time, so
    /// the watermark is one microsecond below it.
    Bounded(Micros),
    OfRows(Box<dyn WatermarkGenerator>),
}

struct Punctuated(Marks);

impl WatermarkGenerator for Punctuated {
    fn observe(&mut self, rows: &RecordBatch, _: &TimestampMicrosecondArray) -> Result<Option<Watermark>> {
        Ok(arrow::compute::max(&(self.0)(rows)?).map(Watermark))
    }
}

/// The watermark of one split, or of one instance of an operator.
pub struct SplitWatermark {
    generator: Generator,
    watermark: RisingWatermark,
}

impl SplitWatermark {
    /// Nothing is promised yet.
    pub fn new(strategy: &WatermarkStrategy) -> Self {
        SplitWatermark { generator: strategy.generator(), watermark: RisingWatermark::default() }
    }

    /// Takes in the rows `which` of a batch, and of their event times. What is said in the middle of
    /// them is promised behind the last. The end of all rows is not for a generator to promise.
    ///
    /// # Errors
    /// The generator's.
    pub fn observe(
        &mut self,
        batch: &RecordBatch,
        times: &TimestampMicrosecondArray,
        which: Range<usize>,
    ) -> Result<()> {
        let times = times.slice(which.start, which.len());
        let promised = match &mut self.generator {
            Generator::Bounded(bound) => arrow::compute::max(&times)
                .map(|time| Watermark(time.saturating_sub(*bound).saturating_sub(1))),
            Generator::OfRows(generator) => {
                generator.observe(&batch.slice(which.start, which.len()), &times)?
            }
        };
        if let Some(watermark) = promised {
            self.watermark.rise(watermark.min(Watermark(Micros::MAX - 1)));
        }
        Ok(())
    }

    /// The split's watermark.
    pub fn current(&self) -> Watermark {
        self.watermark.current()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray};
    use arrow::datatypes::TimestampMicrosecondType;

    use super::*;

    fn rows(times: &[Option<i64>]) -> (RecordBatch, TimestampMicrosecondArray) {
        let times = TimestampMicrosecondArray::from(times.to_vec());
        (RecordBatch::try_from_iter([("time", Arc::new(times.clone()) as ArrayRef)]).unwrap(), times)
    }

    fn watermarks(strategy: &WatermarkStrategy, batches: &[&[Option<i64>]]) -> Vec<i64> {
        let mut split = SplitWatermark::new(strategy);
        let after = |times: &&[Option<i64>]| {
            let (rows, times) = rows(times);
            split.observe(&rows, &times, 0..rows.num_rows()).unwrap();
            split.current().0
        };
        batches.iter().map(after).collect()
    }

    #[test]
    fn rows_may_be_out_of_order_by_the_bound_and_a_watermark_never_falls() {
        let bounded = WatermarkStrategy::bounded_out_of_order(10);
        assert_eq!(watermarks(&bounded, &[&[None], &[Some(100), Some(90)], &[Some(50)]]), [i64::MIN, 89, 89]);
        assert_eq!(watermarks(&WatermarkStrategy::monotonous(), &[&[Some(5)], &[Some(7)]]), [4, 6]);
    }

    #[test]
    fn marks_in_the_rows_say_how_far_time_has_come() {
        // Every hundredth is a mark.
        let marks = |rows: &RecordBatch| {
            let times = rows.column(0).as_primitive::<TimestampMicrosecondType>();
            Ok(times.iter().map(|time| time.filter(|time| time % 100 == 0)).collect())
        };
        let strategy = WatermarkStrategy::punctuated("hundreds", marks);
        assert_eq!(
            watermarks(&strategy, &[&[Some(500)], &[Some(650)], &[Some(600), Some(1)]]),
            [500, 500, 600]
        );
        assert_eq!(strategy.to_string(), "punctuated by hundreds");
    }

    #[test]
    fn a_generator_of_ones_own_is_made_for_each_split() {
        /// Says after every second batch what the first of them had.
        #[derive(Default)]
        struct Every(Option<i64>);
        impl WatermarkGenerator for Every {
            fn observe(
                &mut self,
                _: &RecordBatch,
                times: &TimestampMicrosecondArray,
            ) -> Result<Option<Watermark>> {
                match self.0.take() {
                    Some(time) => Ok(Some(Watermark(time))),
                    None => {
                        self.0 = (!times.is_empty()).then(|| times.value(0));
                        Ok(None)
                    }
                }
            }
        }
        let strategy = WatermarkStrategy::custom("every", || Box::<Every>::default());
        let batches: [&[Option<i64>]; 4] = [&[Some(1)], &[Some(2)], &[Some(i64::MAX)], &[Some(4)]];
        for _ in 0..2 {
            let said = watermarks(&strategy, &batches);
            assert_eq!(said, [i64::MIN, 1, 1, i64::MAX - 1], "the end is not for it to promise");
        }
    }
}
