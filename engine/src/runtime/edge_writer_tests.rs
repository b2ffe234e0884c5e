//! Partitioners, as properties: whatever is written and however the targets read, each row goes
//! where it belongs, once and in order, and nothing overtakes anything.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use proptest::prelude::*;

use super::*;
use crate::checkpoint::CheckpointId;
use crate::runtime::ChannelBounds;

/// What one target saw, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Row(i64),
    Watermark(i64),
    Barrier(u64),
}

#[derive(Clone, Debug)]
enum Step {
    /// Writes a batch of rows with these key hashes.
    Write(Vec<u64>),
    Watermark,
    Barrier,
    /// The task is about to sleep.
    Flush,
    /// A target reads so many elements.
    Read(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => prop_oneof![
            prop::collection::vec(any::<u64>(), 1..40),
            // One key only, and enough rows to leave at once.
            (any::<u64>(), 1usize..1_500).prop_map(|(hash, rows)| vec![hash; rows]),
        ].prop_map(Step::Write),
        2 => Just(Step::Watermark),
        1 => Just(Step::Barrier),
        1 => Just(Step::Flush),
        4 => (0usize..5, 1usize..4).prop_map(|(target, count)| Step::Read(target, count)),
    ];
    prop::collection::vec(step, 1..60)
}

/// A writer over channels, everything that was written, and what the targets have read.
struct Bench {
    writer: EdgeWriter,
    channels: Vec<Arc<Channel>>,
    read: Vec<Vec<Seen>>,
    /// In the order of writing; a row with its key's hash and its batch.
    written: Vec<(Seen, u64, usize)>,
    rows: i64,
    batches: usize,
    controls: u64,
}

impl Bench {
    fn new(partitioner: Partitioner, targets: usize, max_parallelism: u32, rows_max: usize) -> Bench {
        let bounds = ChannelBounds { rows_max, bytes_max: 1 << 20 };
        let channels: Vec<_> = (0..targets).map(|_| Channel::new(bounds)).collect();
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let waker = Waker::new(|| {});
        let writer = EdgeWriter::new(partitioner, max_parallelism, schema, channels.clone(), &waker, 0);
        let read = vec![Vec::new(); targets];
        Bench { writer, channels, read, written: Vec::new(), rows: 0, batches: 0, controls: 0 }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(hashes) => {
                let first = self.rows;
                self.rows += hashes.len() as i64;
                let column: ArrayRef = Arc::new(Int64Array::from_iter_values(first..self.rows));
                let batch = Batch::new(RecordBatch::try_from_iter([("n", column)]).unwrap());
                let batch = batch.with_key_hashes(UInt64Array::from(hashes.clone()));
                let row = |(row, &hash): (i64, &u64)| (Seen::Row(row), hash, self.batches);
                self.written.extend((first..).zip(hashes).map(row));
                self.batches += 1;
                self.writer.write(batch).unwrap();
                self.check_kept();
            }
            Step::Watermark => {
                self.controls += 1;
                self.written.push((Seen::Watermark(self.controls as i64), 0, 0));
                self.writer.watermark(Watermark(self.controls as i64));
            }
            Step::Barrier => {
                self.controls += 1;
                self.written.push((Seen::Barrier(self.controls), 0, 0));
                let checkpoint = CheckpointId { generation: 1, number: self.controls };
                self.writer.barrier(Barrier { checkpoint, builds_on: None }).unwrap();
            }
            Step::Flush => self.writer.flush().unwrap(),
            Step::Read(target, count) => self.read(target % self.channels.len(), *count),
        }
        self.writer.drain();
    }

    /// No row is kept back for long, and no watermark without a row.
    fn check_kept(&self) {
        let kept = self.writer.targets.iter().flat_map(|target| &target.kept);
        let rows = kept.flat_map(|batch| batch.records().column(0).as_primitive::<Int64Type>().values());
        let Some(&oldest) = rows.min() else {
            assert_eq!(self.writer.watermark_kept, None, "it waits for nothing");
            return;
        };
        let (.., batch) = self.written.iter().find(|(what, ..)| *what == Seen::Row(oldest)).unwrap();
        let since = self.batches - batch;
        assert!(since < BATCHES_KEPT_MAX, "row {oldest} has waited for {since} batches");
    }

    fn read(&mut self, target: usize, count: usize) {
        for _ in 0..count {
            match self.channels[target].try_receive() {
                None => return,
                Some(Element::Batch(batch)) => {
                    let rows = batch.records().column(0).as_primitive::<Int64Type>();
                    assert_eq!(batch.key_hashes().map(Array::len), Some(rows.len()), "hashes travel along");
                    self.read[target].extend(rows.values().iter().map(|&row| Seen::Row(row)));
                }
                Some(Element::Watermark(watermark)) => self.read[target].push(Seen::Watermark(watermark.0)),
                Some(Element::Barrier(barrier)) => {
                    self.read[target].push(Seen::Barrier(barrier.checkpoint.number));
                }
                Some(other) => panic!("{other:?} was not sent"),
            }
        }
    }

    fn finish(&mut self) {
        self.writer.flush().unwrap();
        while !self.writer.drain() {
            (0..self.channels.len()).for_each(|target| self.read(target, 1));
        }
        (0..self.channels.len()).for_each(|target| self.read(target, usize::MAX));
    }

    /// Each target saw the rows that `owns` gives it, in their order, and every barrier between
    /// the rows that it was sent between; a watermark may come late or be replaced by a higher one,
    /// but never comes before a row that was written before it, nor behind a later barrier.
    fn check(&self, owns: impl Fn(usize, u64, usize) -> bool) {
        for (target, seen) in self.read.iter().enumerate() {
            let mut wanted: VecDeque<_> = self
                .written
                .iter()
                .filter(|(what, hash, batch)| !matches!(what, Seen::Row(_)) || owns(target, *hash, *batch))
                .map(|(what, ..)| *what)
                .collect();
            let mut promised = None;
            // The highest watermark that rows have overtaken; it must come before a barrier.
            let mut late = None;
            for &what in seen {
                if let Seen::Watermark(watermark) = what {
                    assert!(promised < Some(watermark), "target {target}: watermarks rise");
                    promised = Some(watermark);
                    // Everything written before it must have come, but for lower watermarks.
                    while let Some(&before) = wanted.front() {
                        match before {
                            Seen::Watermark(lower) if lower <= watermark => wanted.pop_front(),
                            _ => break,
                        };
                    }
                    let open = wanted.iter().position(|&other| other == what);
                    assert_eq!(open, None, "target {target}: watermark {watermark} overtook {:?}", wanted[0]);
                } else {
                    while let Some(Seen::Watermark(watermark)) = wanted.front() {
                        late = Some(*watermark);
                        wanted.pop_front();
                    }
                    if let Seen::Barrier(barrier) = what {
                        assert!(promised >= late, "target {target}: barrier {barrier} overtook {late:?}");
                    }
                    assert_eq!(wanted.pop_front(), Some(what), "target {target}");
                }
            }
            let left: Vec<_> = wanted.iter().filter(|other| !matches!(other, Seen::Watermark(_))).collect();
            assert!(left.is_empty(), "target {target} never got {left:?}");
            let last = self.written.iter().rev().find_map(|(what, ..)| match what {
                Seen::Watermark(watermark) => Some(*watermark),
                _ => None,
            });
            assert_eq!(promised, last, "target {target}: the last watermark");
        }
    }
}

#[test]
fn rows_and_watermark_wait_for_some_batches_only_though_others_get_all_that_follows() {
    let mut bench = Bench::new(Partitioner::Hash, 2, 2, 100_000);
    let (few, many) = (Step::Write(vec![0]), Step::Write(vec![1; SHARE_ROWS_MIN]));
    bench.step(&few);
    bench.step(&Step::Watermark);
    (0..BATCHES_KEPT_MAX).for_each(|_| bench.step(&many));
    bench.read(0, 10);
    assert_eq!(bench.read[0], [Seen::Row(0), Seen::Watermark(1)]);
}

#[test]
fn h8_what_waits_at_an_edge_keeps_little_more_alive_than_its_rows() {
    let bounds = ChannelBounds { rows_max: 1 << 20, bytes_max: 1 << 20 };
    for partitioner in
        [Partitioner::Hash, Partitioner::Rebalance, Partitioner::Broadcast, Partitioner::Forward]
    {
        let channels: Vec<_> = (0..8).map(|_| Channel::new(bounds)).collect();
        let texts: ArrayRef =
            Arc::new(StringViewArray::from_iter_values((0..4_000).map(|row| format!("{row:0>4000}"))));
        let whole = Batch::new(RecordBatch::try_from_iter([("text", texts)]).unwrap());
        let whole = whole.with_key_hashes(UInt64Array::from_iter_values(0..4_000));
        let waker = Waker::new(|| {});
        let mut writer = EdgeWriter::new(partitioner, 128, whole.schema(), channels.clone(), &waker, 0);
        // A filter has left one row in ten.
        let few = UInt32Array::from_iter_values((0..4_000).step_by(10));
        for batch in [whole.take(&few).unwrap(), whole] {
            writer.write(batch).unwrap();
        }
        writer.flush().unwrap();
        let (mut rows, mut bytes) = (0, 0);
        loop {
            while let Some(Element::Batch(batch)) = channels.iter().find_map(|channel| channel.try_receive())
            {
                rows += batch.row_count();
                bytes += batch.bytes();
                assert!(batch.bytes() <= (1 << 20) + 10_000, "{partitioner:?}: {}", batch.bytes());
            }
            writer.drain();
            if channels.iter().all(|channel| channel.is_empty()) {
                break;
            }
        }
        let copies = if partitioner == Partitioner::Broadcast { 8 } else { 1 };
        assert_eq!(rows, copies * 4_400, "{partitioner:?}");
        assert!(bytes < rows * 4_000 * 5 / 4, "{partitioner:?}: {bytes}");
    }
}

proptest! {
    #[test]
    fn a_hash_edge_sends_each_row_to_the_owner_of_its_key_group(
        steps in steps(), targets in 1usize..5, max_parallelism in 5u32..300, rows_max in 1usize..2_000
    ) {
        let mut bench = Bench::new(Partitioner::Hash, targets, max_parallelism, rows_max);
        steps.iter().for_each(|step| bench.step(step));
        bench.finish();
        bench.check(|target, hash, _| {
            let group = KeyGroup::of_hash(hash, max_parallelism);
            group.subtask(targets as u32, max_parallelism) == target as u32
        });
    }

    #[test]
    fn a_broadcast_edge_sends_each_row_to_all(
        steps in steps(), targets in 1usize..5, rows_max in 1usize..2_000
    ) {
        let mut bench = Bench::new(Partitioner::Broadcast, targets, 128, rows_max);
        steps.iter().for_each(|step| bench.step(step));
        bench.finish();
        bench.check(|_, _, _| true);
    }

    #[test]
    fn a_rebalanced_edge_sends_the_batches_in_turn(
        steps in steps(), targets in 1usize..5, rows_max in 1usize..2_000
    ) {
        let mut bench = Bench::new(Partitioner::Rebalance, targets, 128, rows_max);
        steps.iter().for_each(|step| bench.step(step));
        bench.finish();
        bench.check(|target, _, batch| batch % targets == target);
    }

    #[test]
    fn a_forward_edge_sends_everything_on(steps in steps(), rows_max in 1usize..2_000) {
        let mut bench = Bench::new(Partitioner::Forward, 1, 128, rows_max);
        steps.iter().for_each(|step| bench.step(step));
        bench.finish();
        bench.check(|_, _, _| true);
    }
}
