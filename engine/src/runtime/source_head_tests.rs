//! Which splits take part in the watermark of a reader, and when.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use parking_lot::Mutex;

use super::*;
use crate::metrics::MetricGroup;
use crate::record::Batch;
use crate::time::OnAhead;

/// What makes a split idle in these tests.
const IDLE_AFTER: Micros = 1_000;

/// One poll: rows of splits (name, time), and the answer.
type Poll = (Vec<(&'static str, i64)>, ReaderStatus);

/// Answers polls as it is told, and says of splits that they were asked.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<VecDeque<(Poll, Vec<&'static str>)>>>);

impl Script {
    fn next(&self, rows: &[(&'static str, i64)], status: ReaderStatus, asked: &[&'static str]) {
        self.0.lock().push_back(((rows.to_vec(), status), asked.to_vec()));
    }
}

fn split(name: &str) -> SplitId {
    SplitId(name.into())
}

fn row(time: i64) -> Batch {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone("+00:00"));
    Batch::new(RecordBatch::try_from_iter([("time", times)]).unwrap())
}

impl SourceReader for Script {
    fn add_splits(&mut self, _: Vec<SplitState>, _: &mut ReaderContext<'_>) -> Result<()> {
        Ok(())
    }
    fn release_splits(&mut self, _: &[SplitId], _: &mut ReaderContext<'_>) -> Result<Vec<SplitState>> {
        Ok(Vec::new())
    }
    fn no_more_splits(&mut self) {}
    fn poll(&mut self, cx: &mut ReaderContext<'_>) -> Result<ReaderStatus> {
        let Some(((rows, status), asked)) = self.0.lock().pop_front() else {
            return Ok(ReaderStatus::Paused(Micros::MAX));
        };
        for (name, time) in rows {
            cx.emit(&split(name), row(time));
        }
        if !asked.is_empty() {
            cx.effect(ReaderEffect::Asked(asked.into_iter().map(split).collect()));
        }
        Ok(status)
    }
    fn snapshot(&mut self, _: CheckpointId) -> Result<Vec<SplitState>> {
        Ok(Vec::new())
    }
}

/// The processing time at monotonic time 0.
const EPOCH: Micros = 1_700_000_000_000_000;

struct Bench {
    head: SourceHead,
    script: Script,
    now: Micros,
    watermark: Watermark,
    idle: bool,
}

impl Bench {
    /// A head with the splits `a` and `b`, at monotonic time 0.
    fn new() -> Bench {
        Bench::of(WatermarkStrategy::bounded_out_of_order(0).idle_after(IDLE_AFTER))
    }

    /// The same with a strategy of one's own.
    fn of(strategy: WatermarkStrategy) -> Bench {
        let script = Script::default();
        let metrics = MetricGroup::default();
        let rows = RowTime::new(row(0).schema(), 0, None, strategy.max_ahead, &metrics);
        let (time, counter) = (SourceTime { rows, strategy, ahead: 1 }, metrics.counter("rows", "Rows."));
        let uid = Uid::new("source").unwrap();
        let mut head = SourceHead::new(uid, Box::new(script.clone()), Some(time), counter);
        let splits = ["a", "b"].map(|name| SplitState { id: split(name), position: Vec::new() });
        head.add_splits(splits.to_vec(), 0).unwrap();
        Bench { head, script, now: 0, watermark: Watermark::MIN, idle: false }
    }

    /// Polls the reader once, `after` microseconds later, and takes in all that comes of it.
    /// Returns when the head wants to be polled again.
    fn poll(
        &mut self,
        after: Micros,
        rows: &[(&'static str, i64)],
        status: ReaderStatus,
        asked: &[&'static str],
    ) -> Option<Micros> {
        self.now += after;
        self.script.next(rows, status, asked);
        loop {
            match self.head.next_event(Now { now: self.now + EPOCH, monotonic: self.now }).unwrap() {
                HeadEvent::Watermark(watermark) => self.watermark = watermark,
                HeadEvent::Idle(idle) => self.idle = idle,
                HeadEvent::Waiting(Some(Micros::MAX)) => return None,
                HeadEvent::Waiting(until) if self.script.0.lock().is_empty() => return until,
                HeadEvent::Again if self.script.0.lock().is_empty() => return None,
                _ => {}
            }
        }
    }

    /// Polls a reader that has nothing, when the head wants it, until the head does not any more.
    fn wait_until_idle(&mut self) {
        let mut until = self.poll(0, &[], ReaderStatus::Waiting(None), &[]);
        while let Some(at) = until {
            until = self.poll(at - self.now, &[], ReaderStatus::Waiting(None), &[]);
        }
    }
}

#[test]
fn a_split_that_was_asked_and_had_nothing_for_long_holds_nobody_back() {
    let mut bench = Bench::new();
    bench.poll(0, &[("a", 100)], ReaderStatus::Ready, &[]);
    assert_eq!(bench.watermark, Watermark::MIN, "it waits for b");
    bench.wait_until_idle();
    assert_eq!((bench.idle, bench.now), (true, IDLE_AFTER));
    bench.poll(0, &[("a", 200)], ReaderStatus::Ready, &[]);
    assert_eq!((bench.idle, bench.watermark), (false, Watermark(199)), "a goes on without b");
    bench.poll(0, &[("b", 300), ("a", 400)], ReaderStatus::Ready, &[]);
    assert_eq!(bench.watermark, Watermark(299), "b takes part again");
}

#[test]
fn slowness_is_not_silence() {
    // A chained function, a stopped process, a clock that is set: the reader is polled late.
    let mut bench = Bench::new();
    for step in 0..20 {
        bench.poll(100 * IDLE_AFTER, &[("a", 1_000 * step)], ReaderStatus::Ready, &[]);
    }
    assert_eq!(bench.watermark, Watermark::MIN, "nobody asked b");
    bench.poll(100 * IDLE_AFTER, &[("b", 5)], ReaderStatus::Ready, &[]);
    assert_eq!(bench.watermark, Watermark(4));

    let mut bench = Bench::new();
    bench.poll(0, &[], ReaderStatus::Waiting(None), &[]);
    bench.poll(3_600_000_000, &[("a", 1_000)], ReaderStatus::Ready, &[]);
    bench.poll(0, &[], ReaderStatus::Waiting(None), &[]);
    assert_eq!(bench.watermark, Watermark::MIN, "the process was stopped for an hour");
    bench.poll(-7_200_000_000, &[("b", 5)], ReaderStatus::Waiting(None), &[]);
    assert_eq!((bench.idle, bench.watermark), (false, Watermark(4)), "the clock was set back");
}

#[test]
fn a_reader_that_pauses_asks_nobody() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        let until = bench.now + 2 * IDLE_AFTER;
        assert_eq!(bench.poll(IDLE_AFTER, &[], ReaderStatus::Paused(until), &[]), Some(until));
    }
    assert!(!bench.idle);
}

#[test]
fn a_split_beside_one_that_never_rests_is_idle_when_it_was_asked_too() {
    let mut bench = Bench::new();
    for step in 0..5 {
        bench.poll(IDLE_AFTER, &[("a", 1_000 + step)], ReaderStatus::Ready, &["a", "b"]);
    }
    assert_eq!(bench.watermark, Watermark(1_003));
}

#[test]
fn a_split_that_comes_back_from_an_outage_is_not_idle_for_its_absence() {
    let mut bench = Bench::new();
    bench.wait_until_idle();
    let told = |bench: &mut Bench, activity| {
        bench.head.effects.push(ReaderEffect::Activity(split("b"), activity));
        bench.poll(0, &[], ReaderStatus::Waiting(None), &[]);
    };
    told(&mut bench, SplitActivity::Idle);
    told(&mut bench, SplitActivity::Active);
    bench.poll(0, &[("a", 100)], ReaderStatus::Ready, &[]);
    assert_eq!((bench.idle, bench.watermark), (false, Watermark::MIN));
}

#[test]
fn a_row_is_held_against_the_clock_and_not_against_how_long_the_process_has_run() {
    let mut bench = Bench::of(WatermarkStrategy::bounded_out_of_order(0).max_ahead(10, OnAhead::Drop));
    bench.poll(0, &[("a", EPOCH + 5), ("b", EPOCH + 11)], ReaderStatus::Ready, &[]);
    assert_eq!(bench.watermark, Watermark::MIN, "b's row does not count");
    bench.poll(1, &[("b", EPOCH + 11)], ReaderStatus::Ready, &[]);
    assert_eq!(bench.watermark, Watermark(EPOCH + 4));
}

#[test]
fn each_split_is_held_against_its_own_rows() {
    let mut bench =
        Bench::of(WatermarkStrategy::bounded_out_of_order(0).max_ahead_of_rows(10, OnAhead::Drop));
    bench.poll(0, &[("a", 5), ("b", 1_000)], ReaderStatus::Ready, &[]);
    assert_eq!(bench.watermark, Watermark(4), "b is ahead of a, and lags behind nobody of its own");
    bench.poll(0, &[("a", 900), ("a", 12), ("b", 1_001)], ReaderStatus::Ready, &[]);
    assert_eq!(bench.watermark, Watermark(11), "the row of 900 does not count");
}
