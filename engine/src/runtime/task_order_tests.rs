//! Messages and barriers come to a task in any order between them, and what it does is the same: at
//! each snapshot it has taken in exactly what lies before the barrier, and its operators have
//! heard, once and truly, what became of every snapshot before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::task_tests::{barrier, link, task_of};
use super::unsettled::Fate;
use super::*;
use crate::Result;
use crate::checkpoint::{Barrier, CheckpointId, SnapshotPart};
use crate::cluster::{FromTask, ToTask};
use crate::graph::Uid;
use crate::metrics::Registry;
use crate::operator::{Operator, OperatorContext, OperatorSnapshot, Step, Waker};
use crate::record::Batch;
use crate::source::{ReaderContext, ReaderStatus, SourceReader, SplitId, SplitState};

/// What the operator was told, in order; with a snapshot, how many rows of each channel it had.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Snapshot(CheckpointId, Vec<usize>),
    Fate(CheckpointId, Fate),
}

struct Witness {
    rows: Vec<usize>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Operator for Witness {
    fn process(&mut self, _: usize, batch: Batch, _: &mut OperatorContext<'_>) -> Result<Step> {
        let channels = batch.records().column(0).as_primitive::<Int64Type>();
        channels.values().iter().for_each(|&channel| self.rows[channel as usize] += 1);
        Ok(Step::Done)
    }
    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        self.told.lock().push(Told::Snapshot(checkpoint, self.rows.clone()));
        Ok(OperatorSnapshot::default())
    }
    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.told.lock().push(Told::Fate(checkpoint, Fate::Completed));
        Ok(())
    }
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.told.lock().push(Told::Fate(checkpoint, Fate::Aborted));
        Ok(())
    }
}

/// A coordinator, the senders of a task's channels, and what is under way between them.
struct World {
    task: Task,
    told: Arc<Mutex<Vec<Told>>>,
    acknowledged: Arc<Mutex<Option<CheckpointId>>>,
    mailbox: Arc<Mailbox>,
    channels: Vec<Arc<Channel>>,
    /// Messages on their way, and barriers that the senders have not sent.
    post: VecDeque<ToTask>,
    unsent: Vec<VecDeque<Barrier>>,
    /// Rows sent so far, by channel, and at each barrier.
    sent: Vec<usize>,
    divided: BTreeMap<CheckpointId, Vec<Option<usize>>>,
    pending: Option<Barrier>,
    last_published: Option<CheckpointId>,
    next: u64,
    fates: BTreeMap<CheckpointId, Fate>,
}

impl World {
    fn new(count: usize) -> World {
        let (told, acknowledged): (Arc<Mutex<Vec<Told>>>, Arc<Mutex<Option<CheckpointId>>>) =
            Default::default();
        let channels: Vec<_> = (0..count).map(|_| Channel::new(ChannelBounds::default())).collect();
        let (inputs, seen) = (channels.clone(), Arc::clone(&told));
        let opener: Opener = Box::new(move || {
            let witness = Witness { rows: vec![0; inputs.len()], told: seen };
            let inputs = inputs.into_iter().map(|channel| (0, channel)).collect();
            let gate = InputGate::new(inputs, &Waker::new(|| {}));
            Ok((Head::Gate(gate), Chain::new(vec![link(Box::new(witness), vec![])], vec![], 1), vec![]))
        });
        let (mailbox, heard) = (Mailbox::new(Waker::new(|| {})), Arc::clone(&acknowledged));
        let reports = Arc::new(move |_, message: FromTask| {
            if let FromTask::Acknowledged { checkpoint, .. } = message {
                *heard.lock() = Some(checkpoint);
            }
        });
        World {
            task: task_of(opener, mailbox.clone(), reports),
            told,
            acknowledged,
            mailbox,
            channels,
            post: VecDeque::new(),
            unsent: vec![VecDeque::new(); count],
            sent: vec![0; count],
            divided: BTreeMap::new(),
            pending: None,
            last_published: None,
            next: 1,
            fates: BTreeMap::new(),
        }
    }

    fn trigger(&mut self) {
        if self.pending.is_none() {
            let barrier = barrier(self.next, self.last_published);
            self.next += 1;
            self.pending = Some(barrier);
            self.post.push_back(ToTask::Trigger { barrier, known: Arc::default() });
            self.unsent.iter_mut().for_each(|unsent| unsent.push_back(barrier));
            self.divided.insert(barrier.checkpoint, vec![None; self.channels.len()]);
        }
    }

    /// Aborts what is pending. Senders that have heard of it in time (`heard`, by bits) leave its
    /// barrier out.
    fn abort(&mut self, heard: usize) {
        if let Some(Barrier { checkpoint, .. }) = self.pending.take() {
            self.fates.insert(checkpoint, Fate::Aborted);
            self.post.push_back(ToTask::Aborted(checkpoint));
            for (index, unsent) in self.unsent.iter_mut().enumerate() {
                unsent.retain(|barrier| heard & (1 << index) == 0 || barrier.checkpoint != checkpoint);
            }
        }
    }

    fn publish(&mut self) {
        let acknowledged = *self.acknowledged.lock();
        if let Some(Barrier { checkpoint, .. }) = self.pending.take_if(|b| acknowledged == Some(b.checkpoint))
        {
            self.fates.insert(checkpoint, Fate::Completed);
            self.last_published = Some(checkpoint);
            self.post.push_back(ToTask::Completed(checkpoint));
        }
    }

    /// Sends a row on a channel, and the next barrier if there is one.
    fn send(&mut self, index: usize) {
        let index = index % self.channels.len();
        let column: ArrayRef = Arc::new(Int64Array::from(vec![index as i64]));
        let row = Batch::new(RecordBatch::try_from_iter([("n", column)]).unwrap());
        assert!(self.channels[index].try_send(Element::Batch(row)).is_none());
        self.sent[index] += 1;
        if let Some(barrier) = self.unsent[index].pop_front() {
            self.divided.get_mut(&barrier.checkpoint).unwrap()[index] = Some(self.sent[index]);
            assert!(self.channels[index].try_send(Element::Barrier(barrier)).is_none());
        }
    }

    fn deliver(&mut self) -> bool {
        self.post.pop_front().map(|message| self.mailbox.send(message)).is_some()
    }

    fn poll(&mut self) -> bool {
        self.task.poll().unwrap() == TaskPoll::Ready
    }

    /// One move of somebody.
    fn step(&mut self, step: usize, which: usize) {
        match step {
            0 => self.trigger(),
            1 => self.abort(which),
            2 => self.publish(),
            3 | 4 => self.send(which),
            5 => drop(self.deliver()),
            _ => drop(self.poll()),
        }
    }

    /// Lets everything arrive that is under way.
    fn settle(&mut self) {
        for index in 0..self.channels.len() {
            while !self.unsent[index].is_empty() {
                self.send(index);
            }
        }
        while self.poll() {}
        self.publish();
        while self.deliver() || self.poll() {}
    }

    fn check(&self) {
        let mut open: Vec<CheckpointId> = Vec::new();
        for told in self.told.lock().iter() {
            match told {
                Told::Snapshot(checkpoint, rows) => {
                    assert!(open.is_empty(), "{checkpoint}, while nobody said what became of {open:?}");
                    let divided: Option<Vec<usize>> = self.divided[checkpoint].iter().copied().collect();
                    assert_eq!(Some(rows), divided.as_ref(), "rows at barrier {checkpoint}");
                    open.push(*checkpoint);
                }
                Told::Fate(checkpoint, fate) => {
                    let at = open.iter().position(|open| open == checkpoint);
                    open.remove(at.unwrap_or_else(|| panic!("{fate:?} of {checkpoint} came unasked")));
                    assert_eq!(self.fates.get(checkpoint), Some(fate), "{checkpoint}");
                }
            }
        }
        assert!(open.iter().all(|open| !self.fates.contains_key(open)), "all messages have come");
    }
}

proptest! {
    #[test]
    fn whatever_comes_first_message_or_barrier_a_task_does_the_same(
        channels in 1usize..4, steps in prop::collection::vec((0usize..9, 0usize..8), 0..250)
    ) {
        let mut world = World::new(channels);
        for (step, which) in steps {
            world.step(step, which);
        }
        world.settle();
        world.check();
        // Nothing is stuck: a checkpoint that everybody lets pass completes.
        world.abort(0);
        world.trigger();
        world.settle();
        world.check();
        prop_assert_eq!(world.last_published.map(|last| last.number), Some(world.next - 1));
    }
}

/// Holds the splits that it was given.
#[derive(Default)]
struct Holder(Vec<SplitState>);

impl SourceReader for Holder {
    fn add_splits(&mut self, splits: Vec<SplitState>, _: &mut ReaderContext<'_>) -> Result<()> {
        self.0.extend(splits);
        Ok(())
    }
    fn release_splits(&mut self, splits: &[SplitId], _: &mut ReaderContext<'_>) -> Result<Vec<SplitState>> {
        Ok(self.0.extract_if(.., |split| splits.contains(&split.id)).collect())
    }
    fn no_more_splits(&mut self) {}
    fn poll(&mut self, _: &mut ReaderContext<'_>) -> Result<ReaderStatus> {
        Ok(ReaderStatus::Waiting(None))
    }
    fn snapshot(&mut self, _: CheckpointId) -> Result<Vec<SplitState>> {
        Ok(self.0.clone())
    }
}

/// The splits that each checkpoint holds of a source's task that finds all `commands` at once.
fn snapshots_of(commands: Vec<ToTask>) -> Vec<(u64, Vec<String>)> {
    let held = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&held);
    let reports = Arc::new(move |_, message: FromTask| {
        if let FromTask::Acknowledged { checkpoint, parts, .. } = message
            && let Some(SnapshotPart::Splits(splits)) = parts[0].1.first()
        {
            let names = splits.iter().map(|split| split.id.to_string()).collect();
            heard.lock().push((checkpoint.number, names));
        }
    });
    let opener: Opener = Box::new(|| {
        let (uid, rows) = (Uid::new("source").unwrap(), Registry::default().group(vec![]).counter("r", "."));
        let head = SourceHead::new(uid, Box::new(Holder::default()), None, rows);
        Ok((Head::Source(Box::new(head)), Chain::new(vec![], vec![vec![]], 0), vec![]))
    });
    let mailbox = Mailbox::new(Waker::new(|| {}));
    let mut task = task_of(opener, mailbox.clone(), reports);
    task.poll().unwrap();
    commands.into_iter().for_each(|command| mailbox.send(command));
    while task.poll().unwrap() == TaskPoll::Ready {}
    let held = held.lock();
    held.clone()
}

#[test]
fn what_a_source_is_told_behind_a_checkpoint_is_done_behind_its_barrier() {
    let split = |name: &str| SplitState { id: SplitId(name.into()), position: Vec::new() };
    let give = |name: &str| ToTask::AssignSplits(vec![split(name)]);
    let trigger =
        |number, builds_on| ToTask::Trigger { barrier: barrier(number, builds_on), known: Arc::default() };
    let commands = vec![give("a"), trigger(1, None), give("b"), ToTask::ReleaseSplits(vec![split("a").id])];
    assert_eq!(snapshots_of(commands), [(1, vec!["a".to_string()])]);

    let first = barrier(1, None).checkpoint;
    let aborted = vec![give("a"), trigger(1, None), give("b"), ToTask::Aborted(first), trigger(2, None)];
    assert_eq!(snapshots_of(aborted), [(2, vec!["a".to_string(), "b".to_string()])]);
}
