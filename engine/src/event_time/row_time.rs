//! The event times of a batch: computed where they are not there, looked at before they count.
//!
//! The rule: what says nothing about how far time has come makes no watermark. Rows without a time,
//! rows whose time no calendar of ours has, and rows that lie too far ahead of the clock are counted
//! apart from one another, each row once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;

use crate::graph::Expression;
use crate::metrics::{Counter, MetricGroup};
use crate::record::{Batch, time_values};
use crate::time::{MaxAhead, Micros, OnAhead, TIME_RANGE};
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
            ahead: metrics
                .counter("rows_ahead_total", "Rows whose event time lay too far ahead of the clock."),
        }
    }

    /// Gives rows their event time at processing time `now`.
    ///
    /// # Errors
    /// That a time cannot be computed.
    pub fn take(&self, batch: Batch, now: Micros) -> Result<Timed> {
        let batch = self.with_column(batch)?;
        let times = time_values(batch.records(), self.column)?.clone();
        self.without_time.add(times.null_count() as u64);
        let limit = self.max_ahead.map_or(Micros::MAX, |max| now.saturating_add(max.by));
        let (lowest, highest) = (arrow::compute::min(&times), arrow::compute::max(&times));
        let is_plain = lowest.is_none_or(|lowest| lowest >= *TIME_RANGE.start())
            && highest.is_none_or(|highest| highest <= limit.min(*TIME_RANGE.end()));
        if is_plain {
            return Ok(Timed { batch, kept: None, times, ahead: None });
        }
        let in_range = |time: &Micros| TIME_RANGE.contains(time);
        let out_of_range = times.iter().flatten().filter(|time| !in_range(time)).count();
        self.out_of_range.add(out_of_range as u64);
        let counting: TimestampMicrosecondArray = times.iter().map(|time| time.filter(in_range)).collect();
        let ahead = counting.iter().flatten().filter(|&time| time > limit).count();
        match self.max_ahead {
            Some(max) if ahead > 0 => {
                self.ahead.add(ahead as u64);
                self.without_ahead(batch, counting, limit, max.then)
            }
            _ => Ok(Timed { batch, kept: None, times: counting, ahead: None }),
        }
    }

    /// Deals with rows whose time lies behind `limit`.
    fn without_ahead(
        &self,
        batch: Batch,
        times: TimestampMicrosecondArray,
        limit: Micros,
        then: OnAhead,
    ) -> Result<Timed> {
        let is_ahead = |time: Option<Micros>| time.is_some_and(|time| time > limit);
        if then == OnAhead::Clamp {
            let clamp = |(own, counting): (Option<Micros>, Option<Micros>)| match is_ahead(counting) {
                true => Some(limit),
                false => own,
            };
            let own = time_values(batch.records(), self.column)?;
            let clamped: TimestampMicrosecondArray = own.iter().zip(times.iter()).map(clamp).collect();
            let times = times.iter().map(|time| time.map(|time| time.min(limit))).collect();
            let batch = self.with_times(batch, Arc::new(clamped.with_timezone("+00:00")))?;
            return Ok(Timed { batch, kept: None, times, ahead: None });
        }
        let kept: BooleanArray = times.iter().map(|time| Some(!is_ahead(time))).collect();
        let ahead = match then {
            OnAhead::DeadLetter => Some(filter(&batch, &arrow::compute::not(&kept)?)?),
            OnAhead::Drop | OnAhead::Clamp => None,
        };
        let times = times.iter().filter(|time| !is_ahead(*time)).collect();
        Ok(Timed { batch: filter(&batch, &kept)?, kept: Some(kept), times, ahead })
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
    use crate::time::{HOUR, SECOND};

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
        let timed = time.take(given, NOW).unwrap();
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
        let guard = |then| Some(MaxAhead { by: HOUR, then });
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
}
