//! Tumbling windows against a plain model, and the promises one by one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampMicrosecondType, UInt64Type};
use proptest::prelude::*;
use thalweg_engine::checkpoint::SnapshotPart;
use thalweg_engine::harness::{HarnessBuilder, HarnessInput, OperatorHarness};
use thalweg_engine::operator::OperatorFactory;
use thalweg_engine::record::{EdgeSchema, Mode, time_type};
use thalweg_engine::state::{KvStore, MapBackend, StateBackend, StoreSite};
use thalweg_engine::time::Micros;

use super::tumbling_operator::STEP_ROWS_MAX;
use super::*;
use crate::aggregate::AggregateSpec;

/// Times around the epoch, at the ends of time, and anywhere.
fn time_of_all_kinds() -> impl Strategy<Value = i64> {
    prop_oneof![
        -1_000_i64..1_000,
        Just(0),
        i64::MIN..i64::MIN + 1_000,
        i64::MAX - 1_000..=i64::MAX,
        any::<i64>(),
    ]
}

proptest! {
    #[test]
    fn a_time_lies_in_the_window_that_arithmetic_without_bounds_says(
        time in time_of_all_kinds(), size in prop_oneof![1_i64..100, 1_i64..i64::MAX, Just(i64::MAX)],
        offset in prop_oneof![any::<i64>(), -100_i64..100],
    ) {
        let window = WindowSize::new(size, offset).unwrap();
        let (wide_time, wide_size, wide_offset) = (i128::from(time), i128::from(size), i128::from(offset));
        let start = (wide_time - wide_offset).div_euclid(wide_size) * wide_size + wide_offset;
        // None only where the window does not fit between the ends of time.
        let fits = i64::try_from(start).ok().filter(|_| i64::try_from(start + wide_size).is_ok());
        prop_assert_eq!(window.start_of(time), fits);
        if let Some(start) = window.start_of(time) {
            prop_assert!(start <= time && time - start < size);
            let last = start + (size - 1);
            prop_assert_eq!(window.start_of(last), Some(start), "the window's last microsecond");
            if let Some(next) = window.start_of(start + size) {
                prop_assert_eq!(next, start + size, "windows tile the line");
            }
        }
    }
}

#[test]
fn windows_before_the_epoch_and_with_an_offset() {
    let window = WindowSize::new(10, 3).unwrap();
    let starts: Vec<_> = [-8, -7, -1, 2, 3, 12, 13].map(|time| window.start_of(time).unwrap()).into();
    assert_eq!(starts, [-17, -7, -7, -7, 3, 3, 13]);
    assert_eq!(WindowSize::new(10, -7).unwrap(), window);
    assert!(WindowSize::new(0, 0).is_err());
}

fn edge() -> EdgeSchema {
    let schema =
        Schema::new(vec![Field::new("key", DataType::UInt64, false), Field::new("time", time_type(), true)]);
    EdgeSchema::new(Arc::new(schema)).with_time("time").unwrap().with_watermarks()
}

fn batch(rows: &[(u64, Option<Micros>)]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(UInt64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let times = rows.iter().map(|row| row.1).collect::<TimestampMicrosecondArray>().with_timezone("+00:00");
    RecordBatch::try_new(edge().schema, vec![keys, Arc::new(times)]).unwrap()
}

fn builder(change: impl Fn(Tumbling) -> Tumbling) -> HarnessBuilder {
    let input = HarnessInput::new(edge()).keyed(&["key"]).unwrap();
    let aggregates = [AggregateSpec::count().alias("n"), AggregateSpec::max("time").alias("latest")];
    OperatorHarness::builder(change(Tumbling::new(input.key(), 10, aggregates)), vec![input])
}

/// (key, start) to the counts that came out, in order.
type Fired = BTreeMap<(u64, Micros), Vec<i64>>;

fn take_fired(harness: &mut OperatorHarness, fired: &mut Fired) {
    for batch in harness.take_batches(0) {
        let time = |column: usize| batch.column(column).as_primitive::<TimestampMicrosecondType>().values();
        let (start, end, rowtime) = (time(1), time(2), time(3));
        for row in 0..batch.num_rows() {
            assert_eq!((end[row], rowtime[row]), (start[row] + 10, start[row] + 9));
            let key = batch.column(0).as_primitive::<UInt64Type>().value(row);
            let count = batch.column(4).as_primitive::<Int64Type>().value(row);
            fired.entry((key, start[row])).or_default().push(count);
        }
    }
}

fn fired(harness: &mut OperatorHarness) -> Fired {
    let mut fired = Fired::new();
    take_fired(harness, &mut fired);
    fired
}

fn late_rows(harness: &mut OperatorHarness) -> usize {
    harness.take_batches(1).iter().map(RecordBatch::num_rows).sum()
}

fn push(harness: &mut OperatorHarness, rows: &[(u64, Micros)]) {
    let rows: Vec<_> = rows.iter().map(|&(key, time)| (key, Some(time))).collect();
    harness.push_batch(0, batch(&rows)).unwrap();
}

#[test]
fn a_window_fires_once_when_the_watermark_reaches_its_last_microsecond() {
    let mut harness = builder(|window| window).open().unwrap();
    push(&mut harness, &[(1, 0), (1, 9), (2, 5), (1, 10), (1, -1)]);
    harness.watermark(0, 8).unwrap();
    assert_eq!(fired(&mut harness), Fired::from([((1, -10), vec![1])]));
    harness.watermark(0, 9).unwrap();
    assert_eq!(fired(&mut harness), Fired::from([((1, 0), vec![2]), ((2, 0), vec![1])]));
    harness.end(0).unwrap();
    assert_eq!(fired(&mut harness), Fired::from([((1, 10), vec![1])]));
    assert_eq!(harness.metrics().total("state_keys_in_memory"), 0);
}

#[test]
fn late_rows_and_rows_without_time_go_to_the_side_and_are_counted_apart() {
    let mut harness = builder(|window| window).open().unwrap();
    push(&mut harness, &[(1, 5)]);
    harness.watermark(0, 9).unwrap();
    fired(&mut harness);
    harness.push_batch(0, batch(&[(1, Some(3)), (1, None), (2, Some(12)), (3, Some(9))])).unwrap();
    let late: Vec<_> = harness.take_batches(1);
    assert_eq!(late, [batch(&[(1, Some(3)), (1, None), (3, Some(9))])]);
    assert_eq!(harness.metrics().total("window_late_rows_total"), 2);
    assert_eq!(harness.metrics().total("window_null_time_rows_total"), 1);
    harness.end(0).unwrap();
    assert_eq!(fired(&mut harness), Fired::from([((2, 10), vec![1])]));
}

#[test]
fn within_the_lateness_a_window_fires_again_per_batch_and_then_is_gone() {
    let mut harness = builder(|window| window.allowed_lateness(5)).open().unwrap();
    push(&mut harness, &[(1, 5)]);
    harness.watermark(0, 12).unwrap();
    assert_eq!(fired(&mut harness), Fired::from([((1, 0), vec![1])]));
    push(&mut harness, &[(1, 6), (1, 7)]);
    // A key that had no row in time.
    push(&mut harness, &[(2, 6)]);
    assert_eq!(fired(&mut harness), Fired::from([((1, 0), vec![3]), ((2, 0), vec![1])]));
    harness.watermark(0, 13).unwrap();
    assert_eq!(fired(&mut harness), Fired::new());
    assert_eq!(harness.metrics().total("state_keys_in_memory"), 2);
    harness.watermark(0, 14).unwrap();
    assert_eq!(harness.metrics().total("state_keys_in_memory"), 0);
    push(&mut harness, &[(1, 8)]);
    assert_eq!((fired(&mut harness), late_rows(&mut harness)), (Fired::new(), 1));
}

/// The bytes of everything that a checkpoint taken now holds of windows.
fn stored_bytes(harness: &mut OperatorHarness) -> u64 {
    let snapshot = harness.snapshot().unwrap();
    let files = snapshot.parts().filter_map(|part| match part {
        SnapshotPart::Keyed(handle) => Some(handle.files.iter().map(|file| file.bytes).sum::<u64>()),
        _ => None,
    });
    files.sum()
}

/// With lateness, with windows in memory and in the store: a watermark that steps past the lateness,
/// or the end of data, leaves nothing behind.
#[test]
fn windows_are_gone_when_the_watermark_has_passed_their_lateness_in_one_step_or_at_the_end() {
    let empty = stored_bytes(&mut builder(|window| window).open().unwrap());
    for (memory, at_the_end) in [(1 << 20, false), (1 << 20, true), (1, false), (1, true)] {
        let mut harness = builder(|window| window.allowed_lateness(5).memory_bytes(memory)).open().unwrap();
        for start in 0..50 {
            push(&mut harness, &[(start % 7, start as Micros * 3)]);
        }
        match at_the_end {
            true => harness.end(0).unwrap(),
            false => harness.watermark(0, 1_000).unwrap(),
        }
        assert_eq!(fired(&mut harness).values().flatten().sum::<i64>(), 50);
        if memory > 1 {
            assert_eq!(harness.metrics().total("state_keys_in_memory"), 0, "at the end: {at_the_end}");
        }
        assert_eq!(stored_bytes(&mut harness), empty, "{memory} bytes, at the end: {at_the_end}");
    }
}

/// Opens `count` windows of a thousand keys, fires them all by one watermark, and answers how many
/// were in memory at most.
fn fire_at_once(count: u64, builder: &HarnessBuilder) -> i64 {
    let mut harness = builder.open().unwrap();
    let mut most = 0;
    for start in (0..count).step_by(8_192) {
        let rows: Vec<_> =
            (start..(start + 8_192).min(count)).map(|i| (i % 1_000, (i / 1_000) as i64 * 10)).collect();
        push(&mut harness, &rows);
        most = most.max(harness.metrics().total("state_keys_in_memory"));
    }
    harness.end(0).unwrap();
    assert!(harness.step_rows_max() <= STEP_ROWS_MAX, "{} rows in a step", harness.step_rows_max());
    let fired = fired(&mut harness);
    assert_eq!(fired.len() as u64, count);
    assert!(fired.values().all(|counts| counts == &[1]));
    most
}

#[test]
fn one_watermark_fires_a_million_windows_in_bounded_steps() {
    fire_at_once(1_000_000, &builder(|window| window.memory_bytes(256 << 20)));
}

#[test]
fn windows_that_only_the_store_holds_fire_in_bounded_steps_too() {
    let most = fire_at_once(60_000, &builder(|window| window.memory_bytes(1 << 20)));
    assert!(most < 25_000, "{most} windows in memory");
}

/// A map in memory in a process with a budget.
struct Budgeted(MapBackend, usize);

impl StateBackend for Budgeted {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn open(&self, site: &StoreSite<'_>) -> thalweg_engine::Result<Box<dyn KvStore>> {
        self.0.open(site)
    }

    fn scratch(&self, unique: &str) -> thalweg_engine::Result<PathBuf> {
        self.0.scratch(unique)
    }

    fn instance_bytes(&self) -> Option<usize> {
        Some(self.1)
    }
}

#[test]
fn windows_keep_to_their_share_of_the_process_s_budget() {
    let backend = Arc::new(Budgeted(MapBackend::default(), 1 << 20));
    let most = fire_at_once(60_000, &builder(|window| window).backend(backend));
    assert!(most < 25_000, "{most} windows in memory");
}

/// What a plain loop says: a row counts unless its window was dropped at its batch's watermark.
fn expected(
    batches: &[(Vec<(u64, Micros)>, Micros)],
    lateness: Micros,
) -> (BTreeMap<(u64, Micros), i64>, usize) {
    let (mut watermark, mut counts, mut late) = (Micros::MIN, BTreeMap::new(), 0);
    for (rows, next) in batches {
        for &(key, time) in rows {
            let start = time.div_euclid(10) * 10;
            if start + 9 + lateness <= watermark {
                late += 1;
            } else {
                *counts.entry((key, start)).or_default() += 1;
            }
        }
        watermark = watermark.max(*next);
    }
    (counts, late)
}

fn steps() -> impl Strategy<Value = Vec<(Vec<(u64, Micros)>, Micros)>> {
    let rows = prop::collection::vec((0_u64..20, -50_i64..150), 1..30);
    prop::collection::vec((rows, -50_i64..150), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// With and without lateness, with next to no memory, and with a checkpoint and a restore at
    /// another parallelism in the middle.
    #[test]
    fn the_last_firing_of_each_window_is_that_of_a_plain_loop(
        steps in steps(), lateness in prop::sample::select(vec![0_i64, 7, 40]),
        memory in prop::sample::select(vec![1_usize, 2_000, 1 << 20]), cut in 0_usize..12,
    ) {
        let builder = builder(|window| window.allowed_lateness(lateness).memory_bytes(memory));
        let mut harness = builder.clone().parallelism(2).open().unwrap();
        let mut found = Fired::new();
        let (mut late, mut watermark) = (0, Micros::MIN);
        for (index, (rows, next)) in steps.iter().enumerate() {
            if index == cut {
                take_fired(&mut harness, &mut found);
                late += late_rows(&mut harness);
                let snapshot = harness.snapshot().unwrap();
                harness = builder.clone().parallelism(3).restore(&snapshot).unwrap();
            }
            push(&mut harness, rows);
            watermark = watermark.max(*next);
            harness.watermark(0, watermark).unwrap();
        }
        harness.end(0).unwrap();
        take_fired(&mut harness, &mut found);
        late += late_rows(&mut harness);
        let (counts, expected_late) = expected(&steps, lateness);
        let last: BTreeMap<_, _> = found.iter().map(|(key, counts)| (*key, counts[counts.len() - 1])).collect();
        prop_assert_eq!(last, counts);
        prop_assert_eq!(late, expected_late);
        if lateness == 0 {
            prop_assert!(found.values().all(|counts| counts.len() == 1), "a window fired twice: {:?}", found);
        }
        prop_assert!(found.values().all(|counts| counts.is_sorted_by(|a, b| a < b)), "fired for nothing");
        // Nothing is left behind.
        let instances = if cut < steps.len() { 3 } else { 2 };
        let empty = stored_bytes(&mut builder.parallelism(instances).open().unwrap());
        prop_assert_eq!(stored_bytes(&mut harness), empty);
    }
}

#[test]
fn an_aborted_checkpoint_does_not_lose_the_timers_of_its_windows() {
    let builder = builder(|window| window.memory_bytes(1));
    let mut harness = builder.open().unwrap();
    push(&mut harness, &[(1, 5), (2, 15)]);
    let barrier = harness.begin_snapshot().unwrap();
    harness.abort_snapshot(barrier).unwrap();
    // Evicts what the aborted checkpoint was to write.
    push(&mut harness, &[(3, 5)]);
    push(&mut harness, &[(4, 5)]);
    let snapshot = harness.snapshot().unwrap();
    let mut harness = builder.restore(&snapshot).unwrap();
    harness.end(0).unwrap();
    let keys: Vec<_> = fired(&mut harness).into_keys().collect();
    assert_eq!(keys, [(1, 0), (2, 10), (3, 0), (4, 0)]);
}

#[test]
fn what_was_late_is_late_after_a_restore() {
    let builder = builder(|window| window);
    let mut harness = builder.open().unwrap();
    push(&mut harness, &[(1, 5)]);
    harness.watermark(0, 9).unwrap();
    let snapshot = harness.snapshot().unwrap();
    let mut harness = builder.parallelism(2).restore(&snapshot).unwrap();
    push(&mut harness, &[(1, 5)]);
    harness.end(0).unwrap();
    assert_eq!((fired(&mut harness), late_rows(&mut harness)), (Fired::new(), 1));
}

/// A job that was read to its end and is given more: the windows that the end closed stay closed,
/// those behind them are not late, whatever instance asks.
#[test]
fn what_the_end_of_data_closed_stays_closed_and_later_rows_are_not_late() {
    let builder = builder(|window| window).parallelism(2);
    let mut harness = builder.open().unwrap();
    push(&mut harness, &[(1, 5), (2, 25), (3, 14)]);
    harness.end(0).unwrap();
    assert_eq!(fired(&mut harness).len(), 3);
    let snapshot = harness.snapshot().unwrap();
    for parallelism in [2, 3] {
        let mut harness = builder.clone().parallelism(parallelism).restore(&snapshot).unwrap();
        push(&mut harness, &[(1, 29), (1, 30), (3, 14), (4, 31)]);
        assert_eq!(late_rows(&mut harness), 2, "in windows that the end closed, for every key");
        harness.end(0).unwrap();
        assert_eq!(fired(&mut harness), Fired::from([((1, 30), vec![1]), ((4, 30), vec![1])]));
    }
}

/// Lateness may be another than in the checkpoint, with windows in memory and in the store.
#[test]
fn windows_of_a_checkpoint_are_kept_for_as_long_as_the_job_now_says() {
    let with = |lateness, memory| {
        builder(move |window| window.allowed_lateness(lateness).memory_bytes(memory)).parallelism(2)
    };
    let empty = stored_bytes(&mut with(0, 1).open().unwrap());
    for (before, after, memory) in
        [(0, 5), (5, 0), (3, 8), (8, 3)].into_iter().flat_map(|(b, a)| [(b, a, 1), (b, a, 1 << 20)])
    {
        let case = format!("{before} then {after}, {memory} bytes");
        let mut harness = with(before, memory).open().unwrap();
        push(&mut harness, &[(1, 5), (2, 6), (3, 15), (4, 16)]);
        harness.watermark(0, 9).unwrap();
        assert_eq!(fired(&mut harness).len(), 2, "{case}");
        let snapshot = harness.snapshot().unwrap();

        let mut harness = with(after, memory).restore(&snapshot).unwrap();
        push(&mut harness, &[(1, 7)]);
        let again = match (before, after) {
            (_, 0) => Fired::new(),
            (0, _) => Fired::from([((1, 0), vec![1])]),
            _ => Fired::from([((1, 0), vec![2])]),
        };
        assert_eq!(
            (fired(&mut harness), late_rows(&mut harness)),
            (again, usize::from(after == 0)),
            "{case}"
        );
        // To where the windows from before the checkpoint are over, and the others are not.
        harness.watermark(0, 18).unwrap();
        push(&mut harness, &[(1, 8), (3, 17)]);
        assert_eq!((fired(&mut harness), late_rows(&mut harness)), (Fired::new(), 1), "{case}");
        harness.watermark(0, 19).unwrap();
        let due = Fired::from([((3, 10), vec![2]), ((4, 10), vec![1])]);
        assert_eq!(fired(&mut harness), due, "{case}");
        harness.watermark(0, 19 + after).unwrap();
        assert_eq!(stored_bytes(&mut harness), empty, "{case}");
    }
}

#[test]
fn outputs_say_what_flows_and_what_does_not_fit_is_refused() {
    let window = |change: fn(Tumbling) -> Tumbling| change(Tumbling::new(&[0], 10, [AggregateSpec::count()]));
    let outputs = window(|window| window).outputs(&[edge()]).unwrap();
    let names: Vec<_> = outputs[0].schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["key", "window_start", "window_end", "window_time", "count(*)"]);
    assert_eq!((outputs[0].time, &outputs[0].mode), (Some(3), &Mode::Append));
    assert_eq!(outputs[1], edge());
    let upsert = Mode::Upsert(vec!["key".into(), "window_start".into(), "window_end".into()]);
    let late = window(|window| window.allowed_lateness(1)).outputs(&[edge()]).unwrap();
    assert_eq!(late[0].mode, upsert);

    let refuse = |window: Tumbling, edge: EdgeSchema| window.outputs(&[edge]).unwrap_err().to_string();
    assert!(refuse(window(|w| w), EdgeSchema { time: None, ..edge() }).contains("no event time"));
    assert!(refuse(window(|w| w), EdgeSchema { watermarks: false, ..edge() }).contains("no watermarks"));
    assert!(!window(|w| w).takes(0, &Mode::Retract));
    assert!(refuse(window(|w| w.allowed_lateness(-1)), edge()).contains("negative"));
    assert!(refuse(Tumbling::new(&[0], 0, []), edge()).contains("positive"));
}

/// A barrier between two steps of a firing, with windows in memory and in the store: each window
/// fires once before it or, after a restore at any parallelism, after it; and once where it goes on.
#[test]
fn a_barrier_in_the_middle_of_a_firing_divides_it() {
    const KEYS: u64 = 40_000;
    for (lateness, memory) in [(0, 64 << 20), (0, 1 << 20), (3, 64 << 20), (3, 1 << 20)] {
        let builder = builder(|window| window.allowed_lateness(lateness).memory_bytes(memory));
        let mut harness = builder.open().unwrap();
        for keys in (0..KEYS).collect::<Vec<_>>().chunks(5_000) {
            let rows: Vec<_> = keys.iter().map(|&key| (key, (key % 3) as Micros)).collect();
            push(&mut harness, &rows);
        }
        harness.begin_watermark(0, 9, 3).unwrap();
        let before = fired(&mut harness);
        let snapshot = harness.snapshot().unwrap();
        harness.finish_watermark().unwrap();
        let after = fired(&mut harness);
        assert!(before.len() > 1_000 && after.len() > 1_000, "{} and {}", before.len(), after.len());
        let whole = |after: &Fired| {
            let mut whole = before.clone();
            for (window, counts) in after {
                whole.entry(*window).or_default().extend(counts);
            }
            assert_eq!(whole.len() as u64, KEYS);
            assert!(whole.values().all(|counts| counts == &[1]), "a window fires once");
        };
        whole(&after);
        for parallelism in [1, 3] {
            let mut restored = builder.clone().parallelism(parallelism).restore(&snapshot).unwrap();
            restored.end(0).unwrap();
            whole(&fired(&mut restored));
        }
    }
}
