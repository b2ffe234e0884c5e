//! The event times of a batch: computed where they are not there, looked at before they count.
//!
//! The rule: what says nothing about how far time has come makes no watermark. Rows without a time,
//! rows whose time no calendar of ours has, and rows that lie too far ahead are counted
//! apart from one another, each row once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;

use crate::graph::Expression;
use crate::metrics::{Counter, MetricGroup};
use crate::record::{Batch, time_values};
use crate::time::{AheadOf, MaxAhead, Micros, OnAhead, TIME_RANGE};
use crate::{Context, Result};

/// A batch whose rows have their event time.
pub struct Timed {
    /// The rows that go on.
    pub batch: Batch,
    /// Which of the rows that were given go on; `None`: all.
    pub kept: Option<BooleanArray>,
    /// The times that count for the watermark, one for each row that goes on.
    pub times: TimestampMicrosecondArray,
    /// Rows that lie too far ahead, where they are kept apart.
    pub ahead: Option<Batch>,
}

/// How rows get their event time.
pub struct RowTime {
    column: usize,
    computed: Option<Arc<dyn Expression>>,
    schema: SchemaRef,
    max_ahead: Option<MaxAhead>,
    without_time: Counter,
    out_of_range: Counter,
    ahead: Counter,
}

impl RowTime {
    /// Event time in `column` of `schema`, the edge's; `computed` computes the last column when it is
    /// not among those that come.
    pub fn new(
        schema: SchemaRef,
        column: usize,
        computed: Option<Arc<dyn Expression>>,
        max_ahead: Option<MaxAhead>,
        metrics: &MetricGroup,
    ) -> RowTime {
        RowTime {
            column,
            computed,
            schema,
            max_ahead,
            without_time: metrics.counter("rows_without_time_total", "Rows whose event time is null."),
            out_of_range: metrics.counter(
                "rows_time_out_of_range_total",
                "Rows whose event time is not in the years 1 to 9999.",
            ),
            ahead: metrics.counter("rows_ahead_total", "Rows whose event time lay too far ahead."),
        }
    }

    /// Gives rows their event time at processing time `now`. `of_rows` says up to which time each row
    /// counts where rows are held against each other, of their times and the bound; it is asked
    /// then alone.
    ///
    /// # Errors
    /// That a time cannot be computed.
    pub fn take(
        &self,
        batch: Batch,
        now: Micros,
        of_rows: &mut dyn FnMut(&[Option<Micros>], Micros) -> Vec<Micros>,
    ) -> Result<Timed> {
        let batch = self.with_column(batch)?;
        let times = time_values(batch.records(), self.column)?.clone();
        self.without_time.add(times.null_count() as u64);
        let limit = match self.max_ahead {
            Some(MaxAhead { by, of: AheadOf::Clock, .. }) => now.saturating_add(by),
            _ => Micros::MAX,
        };
        let (lowest, highest) = (arrow::compute::min(&times), arrow::compute::max(&times));
        let is_plain = lowest.is_none_or(|lowest| lowest >= *TIME_RANGE.start())
            && highest.is_none_or(|highest| highest <= limit.min(*TIME_RANGE.end()));
        let among_rows = self.max_ahead.filter(|max| max.of == AheadOf::Rows);
        if is_plain && among_rows.is_none() {
            return Ok(Timed { batch, kept: None, times, ahead: None });
        }
        let in_range = |time: &Micros| TIME_RANGE.contains(time);
        let out_of_range = times.iter().flatten().filter(|time| !in_range(time)).count();
        self.out_of_range.add(out_of_range as u64);
        let counting: Vec<Option<Micros>> = times.iter().map(|time| time.filter(in_range)).collect();
        let limits = match among_rows {
            Some(max) => of_rows(&counting, max.by),
            None => vec![limit; counting.len()],
        };
        let is_ahead = |(time, limit): (&Option<Micros>, &Micros)| time.is_some_and(|time| time > *limit);
        let ahead: Vec<bool> = counting.iter().zip(&limits).map(is_ahead).collect();
        let count = ahead.iter().filter(|ahead| **ahead).count();
        match self.max_ahead {
            Some(max) if count > 0 => {
                self.ahead.add(count as u64);
                self.without_ahead(batch, &counting, &ahead, &limits, max.then)
            }
            _ => Ok(Timed { batch, kept: None, times: counting.into(), ahead: None }),
        }
    }

    /// Deals with the rows that lie too far ahead.
    fn without_ahead(
        &self,
        batch: Batch,
        times: &[Option<Micros>],
        ahead: &[bool],
        limits: &[Micros],
        then: OnAhead,
    ) -> Result<Timed> {
        if then == OnAhead::Clamp {
            let set_back = |times: &mut dyn Iterator<Item = Option<Micros>>| {
                let rows = times.zip(ahead).zip(limits);
                rows.map(|((time, ahead), limit)| if *ahead { Some(*limit) } else { time }).collect()
            };
            let own = time_values(batch.records(), self.column)?;
            let clamped: TimestampMicrosecondArray = set_back(&mut own.iter());
            let times = set_back(&mut times.iter().copied());
            let batch = self.with_times(batch, Arc::new(clamped.with_timezone("+00:00")))?;
            return Ok(Timed { batch, kept: None, times, ahead: None });
        }
        let kept: BooleanArray = ahead.iter().map(|ahead| Some(!ahead)).collect();
        let times = times.iter().zip(ahead).filter(|(_, ahead)| !**ahead).map(|(time, _)| *time).collect();
        let aside = match then {
            OnAhead::DeadLetter => Some(filter(&batch, &arrow::compute::not(&kept)?)?),
            OnAhead::Drop | OnAhead::Clamp => None,
        };
        Ok(Timed { batch: filter(&batch, &kept)?, kept: Some(kept), times, ahead: aside })
    }

    fn with_column(&self, batch: Batch) -> Result<Batch> {
        let Some(expression) = &self.computed else { return Ok(batch) };
        let records = batch.records();
        let mut columns = records.columns().to_vec();
        columns.push(expression.evaluate(records).context(|| "event time".to_string())?);
        self.rebuilt(&batch, columns)
    }

    fn with_times(&self, batch: Batch, times: ArrayRef) -> Result<Batch> {
        let mut columns = batch.records().columns().to_vec();
        columns[self.column] = times;
        self.rebuilt(&batch, columns)
    }

    fn rebuilt(&self, batch: &Batch, columns: Vec<ArrayRef>) -> Result<Batch> {
        let made = Batch::new(RecordBatch::try_new(self.schema.clone(), columns)?);
        Ok(match batch.key_hashes() {
            Some(hashes) => made.with_key_hashes(hashes.clone()),
            None => made,
        })
    }
}

fn filter(batch: &Batch, kept: &BooleanArray) -> Result<Batch> {
    let made = Batch::new(filter_record_batch(batch.records(), kept)?);
    Ok(match batch.key_hashes() {
        Some(hashes) => {
            let hashes = arrow::compute::filter(hashes, kept)?;
            made.with_key_hashes(UInt64Array::from(hashes.to_data()))
        }
        None => made,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;
    use crate::time::{HOUR, RowsReached, SECOND};

    const NOW: Micros = 1_700_000_000 * SECOND;

    fn batch(times: &[Option<Micros>]) -> Batch {
        let times = TimestampMicrosecondArray::from(times.to_vec()).with_timezone("+00:00");
        Batch::new(
            RecordBatch::try_from_iter_with_nullable([("at", Arc::new(times) as ArrayRef, true)]).unwrap(),
        )
    }

    fn taken(max_ahead: Option<MaxAhead>, times: &[Option<Micros>]) -> (Timed, [i64; 3]) {
        let registry = Registry::default();
        let given = batch(times);
        let time = RowTime::new(given.schema(), 0, None, max_ahead, &registry.group(Vec::new()));
        let mut reached = RowsReached::default();
        let timed = time.take(given, NOW, &mut |times, by| reached.limits(times, by)).unwrap();
        let counted = ["rows_without_time_total", "rows_time_out_of_range_total", "rows_ahead_total"];
        (timed, counted.map(|name| registry.total(name)))
    }

    fn times_of(batch: &Batch) -> Vec<Option<Micros>> {
        time_values(batch.records(), 0).unwrap().iter().collect()
    }

    /// One of each: null, out of range both ways, two hours ahead, on time.
    const ROWS: [Option<Micros>; 5] = [None, Some(i64::MAX), Some(i64::MIN), Some(NOW + 2 * HOUR), Some(NOW)];

    #[test]
    fn rows_without_time_and_out_of_range_are_counted_apart_and_make_no_watermark() {
        let (timed, counted) = taken(None, &ROWS);
        assert_eq!(counted, [1, 2, 0]);
        assert_eq!(times_of(&timed.batch), ROWS, "they go on all the same");
        assert_eq!(arrow::compute::max(&timed.times), Some(NOW + 2 * HOUR));
        assert_eq!(arrow::compute::min(&timed.times), Some(NOW));
    }

    #[test]
    fn rows_too_far_ahead_are_dropped_put_aside_or_set_back_and_counted() {
        let guard = |then| Some(MaxAhead { by: HOUR, of: AheadOf::Clock, then });
        let (timed, counted) = taken(guard(OnAhead::Drop), &ROWS);
        assert_eq!(counted, [1, 2, 1]);
        assert_eq!(times_of(&timed.batch), [None, Some(i64::MAX), Some(i64::MIN), Some(NOW)]);
        assert_eq!(timed.times.len(), 4);
        assert!(timed.ahead.is_none());
        assert_eq!(timed.kept.unwrap().true_count(), 4);

        let (timed, _) = taken(guard(OnAhead::DeadLetter), &ROWS);
        assert_eq!(times_of(&timed.ahead.unwrap()), [Some(NOW + 2 * HOUR)]);
        assert_eq!(timed.batch.row_count(), 4);

        let (timed, counted) = taken(guard(OnAhead::Clamp), &ROWS);
        assert_eq!(counted, [1, 2, 1]);
        let clamped = [None, Some(i64::MAX), Some(i64::MIN), Some(NOW + HOUR), Some(NOW)];
        assert_eq!(times_of(&timed.batch), clamped);
        assert_eq!(arrow::compute::max(&timed.times), Some(NOW + HOUR));

        let (timed, counted) = taken(guard(OnAhead::Drop), &[Some(NOW + HOUR)]);
        assert_eq!((counted, timed.batch.row_count()), ([0, 0, 0], 1), "as far as that is allowed");
    }

    #[test]
    fn rows_are_held_against_each_other_whatever_the_clock_says() {
        let guard = |then| Some(MaxAhead { by: HOUR, of: AheadOf::Rows, then });
        let year = 365 * 24 * HOUR;
        let rows = [Some(NOW - year), None, Some(NOW), Some(NOW - year + HOUR), Some(i64::MAX)];
        let (timed, counted) = taken(guard(OnAhead::Drop), &rows);
        assert_eq!(counted, [1, 1, 1]);
        let kept = [Some(NOW - year), None, Some(NOW - year + HOUR), Some(i64::MAX)];
        assert_eq!(times_of(&timed.batch), kept);
        assert_eq!(arrow::compute::max(&timed.times), Some(NOW - year + HOUR));

        let (timed, _) = taken(guard(OnAhead::DeadLetter), &rows);
        assert_eq!(times_of(&timed.ahead.unwrap()), [Some(NOW)]);

        let (timed, _) = taken(guard(OnAhead::Clamp), &rows);
        let back = Some(NOW - year + 2 * HOUR);
        let clamped = [Some(NOW - year), None, back, Some(NOW - year + HOUR), Some(i64::MAX)];
        assert_eq!(times_of(&timed.batch), clamped);
    }
}
