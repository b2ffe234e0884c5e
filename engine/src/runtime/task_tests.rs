//! What a task does about commands that come while it works.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use parking_lot::Mutex;

use super::task_environment::Reports;
use super::*;
use crate::checkpoint::{Barrier, CheckpointId, FileHandle, MemoryStorage, SnapshotSite};
use crate::cluster::{FromTask, TaskId, ToTask};
use crate::graph::{ChainId, Partitioner, Uid};
use crate::metrics::Registry;
use crate::operator::{Operator, OperatorContext, OperatorSnapshot, Step, Waker};
use crate::record::Batch;
use crate::state::MapBackend;
use crate::time::{self, Micros, Watermark};
use crate::{Error, Result};

const FIRST: Barrier = barrier(1, None);
const SECOND: Barrier = barrier(2, Some(FIRST.checkpoint));

/// The barrier of a checkpoint.
pub(super) const fn barrier(number: u64, builds_on: Option<CheckpointId>) -> Barrier {
    Barrier { checkpoint: CheckpointId { generation: 1, number }, builds_on }
}

type Heard = Arc<Mutex<Vec<String>>>;

/// Writes down what it is told.
struct Scribe(Heard);

impl Operator for Scribe {
    fn process(&mut self, _: usize, _: Batch, _: &mut OperatorContext<'_>) -> Result<Step> {
        Ok(Step::Done)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        self.0.lock().push(format!("snapshot {checkpoint}"));
        let heard = self.0.clone();
        let task = move |site: &SnapshotSite| {
            heard.lock().push(format!("knows {}", site.known.len()));
            Ok(Vec::new())
        };
        Ok(OperatorSnapshot { tasks: vec![Box::new(task)], ..OperatorSnapshot::default() })
    }

    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.0.lock().push(format!("aborted {checkpoint}"));
        Ok(())
    }
}

pub(super) struct AtOnce;

impl Background for AtOnce {
    fn spawn(&self, _pool: Pool, _name: &str, job: Job, _on_panic: OnPanic) {
        job();
    }
}

pub(super) fn batch(rows: i64) -> Batch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    Batch::new(RecordBatch::try_from_iter([("n", column)]).unwrap())
}

/// A task of what `opener` makes, and that reports to `reports`.
pub(super) fn task_of(opener: Opener, mailbox: Arc<Mailbox>, reports: Reports) -> Task {
    task_at(ManualClock::new(0), opener, mailbox, reports)
}

/// The same with a clock that the test moves.
fn task_at(clock: ManualClock, opener: Opener, mailbox: Arc<Mailbox>, reports: Reports) -> Task {
    let head = Uid::new("operator").unwrap();
    let id = TaskId { attempt: 1, chain: ChainId(0), subtask: 0, head };
    let environment = TaskEnvironment {
        clock: Arc::new(clock),
        background: Arc::new(AtOnce),
        reports,
        storage: Arc::new(MemoryStorage::new()),
        backend: Arc::new(MapBackend::default()),
        job_path: "job".into(),
    };
    let shown = TaskMetrics::new(&Registry::default().group(Vec::new()));
    Task::new(id, environment, mailbox, opener, Arc::new(AtomicBool::new(false)), shown)
}

/// An operator as the only one of its chain.
pub(super) fn link(operator: Box<dyn Operator>, targets: Vec<Target>) -> ChainLink {
    let metrics = Registry::default().group(Vec::new());
    ChainLink {
        keeps_state: true,
        uid: Uid::new("operator").unwrap(),
        name: "operator".into(),
        operator,
        targets: vec![targets],
        rows_in: metrics.counter("i", "."),
        rows_out: metrics.counter("o", "."),
        rows_unread: metrics.counter("u", "."),
    }
}

/// A task of one operator between a channel and, perhaps, another.
fn task(
    operator: Box<dyn Operator>,
    mailbox: Arc<Mailbox>,
    from: Arc<Channel>,
    to: Option<Arc<Channel>>,
) -> Task {
    reporting_task(Arc::new(|_, _| {}), ManualClock::new(0), operator, mailbox, from, to)
}

/// The same with a clock that the test moves, and who is told what the task reports.
fn reporting_task(
    reports: Reports,
    clock: ManualClock,
    operator: Box<dyn Operator>,
    mailbox: Arc<Mailbox>,
    from: Arc<Channel>,
    to: Option<Arc<Channel>>,
) -> Task {
    let opener: Opener = Box::new(move || {
        let waker = Waker::new(|| {});
        let link = link(operator, to.iter().map(|_| Target::Edge(0)).collect());
        let edge = |to| EdgeWriter::new(Partitioner::Forward, 128, batch(1).schema(), vec![to], &waker, 0);
        let gate = InputGate::new(vec![(0, from)], &waker);
        Ok((Head::Gate(gate), Chain::new(vec![link], Vec::new(), 1), to.into_iter().map(edge).collect()))
    });
    task_at(clock, opener, mailbox, reports)
}

/// What a scribe hears of the second barrier, which waits in its task's channel; `commands` come
/// when the task has looked into its mailbox and is about to look into the channel.
fn polled(commands: Vec<ToTask>) -> Vec<String> {
    let heard = Heard::default();
    let mailbox = Mailbox::new(Waker::new(|| {}));
    let channel = Channel::new(ChannelBounds { rows_max: 1, bytes_max: 1 << 20 });
    channel.try_send(Element::Barrier(SECOND));
    channel.try_send(Element::Batch(batch(1)));
    let refused = channel.try_send(Element::Batch(batch(1)));
    assert!(refused.is_some(), "the sender waits: it is woken when the gate reads");
    let (commands, to) = (Mutex::new(commands), mailbox.clone());
    channel.set_sender(Waker::new(move || commands.lock().drain(..).for_each(|command| to.send(command))));

    let mut task = task(Box::new(Scribe(heard.clone())), mailbox, channel, None);
    for _ in 0..5 {
        if task.poll().unwrap() == TaskPoll::Finished {
            heard.lock().push("finished".into());
            break;
        }
    }
    let heard = heard.lock();
    heard.clone()
}

fn trigger() -> ToTask {
    let file = FileHandle { name: "f".into(), path: "p".into(), bytes: 0, hash: "h".into() };
    ToTask::Trigger { barrier: SECOND, known: Arc::new(BTreeMap::from([("h".into(), file)])) }
}

#[test]
fn files_that_are_known_when_the_barrier_comes_are_not_uploaded_again() {
    assert_eq!(polled(vec![trigger()]), ["snapshot 1-2", "knows 1"]);
    let other = ToTask::Trigger { barrier: barrier(2, None), known: Arc::default() };
    assert_eq!(polled(vec![trigger(), other]), ["snapshot 1-2", "knows 0"], "files of another checkpoint");
    assert_eq!(polled(Vec::new()), ["snapshot 1-2", "knows 0"], "the message is late");
}

#[test]
fn a_barrier_whose_checkpoint_is_aborted_meanwhile_takes_no_snapshot() {
    assert!(polled(vec![trigger(), ToTask::Aborted(SECOND.checkpoint)]).is_empty());
}

#[test]
fn a_task_that_is_cancelled_at_a_barrier_stops_without_a_snapshot() {
    assert_eq!(polled(vec![trigger(), ToTask::Cancel]), ["finished"]);
}

/// Fires one row a step for a watermark.
struct Fires {
    left: u32,
    is_interruptible: bool,
}

impl Operator for Fires {
    fn process(&mut self, _: usize, _: Batch, _: &mut OperatorContext<'_>) -> Result<Step> {
        Ok(Step::Done)
    }

    fn watermark(&mut self, _: Watermark, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.resume(cx)
    }

    fn is_interruptible(&self) -> bool {
        self.is_interruptible
    }

    fn resume(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        cx.emit(batch(1));
        self.left -= 1;
        Ok(if self.left == 0 { Step::Done } else { Step::More })
    }
}

/// What leaves a task whose last watermark fires 1,000 rows, one a step, with a barrier right
/// behind it.
fn fired(is_interruptible: bool) -> Vec<Element> {
    let (from, to) = (Channel::new(ChannelBounds::default()), Channel::new(ChannelBounds::default()));
    for element in [Element::Watermark(Watermark::MAX), Element::EndOfData, Element::Barrier(SECOND)] {
        assert!(from.try_send(element).is_none());
    }
    let mailbox = Mailbox::new(Waker::new(|| {}));
    let operator = Box::new(Fires { left: 1_000, is_interruptible });
    let mut task = task(operator, mailbox, from, Some(to.clone()));
    while task.poll().unwrap() == TaskPoll::Ready {}
    std::iter::from_fn(|| to.try_receive()).collect()
}

fn barrier_at(elements: &[Element]) -> usize {
    elements.iter().position(|element| matches!(element, Element::Barrier(SECOND))).expect("a barrier")
}

#[test]
fn a_barrier_overtakes_a_long_firing_that_may_be_interrupted_and_nothing_else_does() {
    let elements = fired(true);
    assert_eq!(barrier_at(&elements), 1, "after the first step");
    assert_eq!(elements.len(), 1_003);
    assert!(elements[2..1_001].iter().all(|element| matches!(element, Element::Batch(_))));
    let [.., Element::Watermark(Watermark::MAX), Element::EndOfData] = elements[..] else {
        panic!("the watermark is forwarded last: {:?}", &elements[1_000..]);
    };
}

#[test]
fn a_barrier_waits_for_a_firing_that_may_not_be_interrupted() {
    let elements = fired(false);
    assert_eq!((barrier_at(&elements), elements.len()), (1_002, 1_003));
}

/// Asks to be woken in 100 s of processing time, once, and writes down when it is.
struct Alarm(Heard, Option<Micros>);

impl Operator for Alarm {
    fn process(&mut self, _: usize, _: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let at = cx.now() + 100 * time::SECOND;
        self.1 = Some(at);
        cx.wake_at(at);
        Ok(Step::Done)
    }

    fn wake(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        if self.1.take_if(|at| *at <= cx.now()).is_some() {
            self.0.lock().push(format!("rings at {} s", cx.now() / time::SECOND));
        }
        Ok(Step::Done)
    }
}

/// A task whose alarm was set at second 0, with its clock and what it writes down.
fn alarmed() -> (Task, ManualClock, Heard) {
    let (clock, heard) = (ManualClock::new(0), Heard::default());
    let channel = Channel::new(ChannelBounds::default());
    channel.try_send(Element::Batch(batch(1)));
    let mailbox = Mailbox::new(Waker::new(|| {}));
    let alarm = Box::new(Alarm(heard.clone(), None));
    let task = reporting_task(Arc::new(|_, _| {}), clock.clone(), alarm, mailbox, channel, None);
    (task, clock, heard)
}

/// Drives a task as an executor does, until it waits for a time at or after `until`.
fn drive(task: &mut Task, clock: &ManualClock, until: Micros) {
    loop {
        match task.poll().unwrap() {
            TaskPoll::Ready => {}
            TaskPoll::Waiting(Some(at)) if at < until => clock.advance_to(at),
            TaskPoll::Waiting(_) => return clock.advance_to(until),
            TaskPoll::Finished => panic!("it is over"),
        }
    }
}

#[test]
fn a_clock_that_is_set_forward_fires_the_timers_that_it_passes_over_once_and_soon() {
    let (mut task, clock, heard) = alarmed();
    drive(&mut task, &clock, 30 * time::SECOND);
    assert!(heard.lock().is_empty());
    clock.step(3_600 * time::SECOND);
    drive(&mut task, &clock, 30 * time::SECOND + LOOK_EVERY + 1);
    assert_eq!(heard.lock().len(), 1, "{:?}", heard.lock());
    drive(&mut task, &clock, 300 * time::SECOND);
    assert_eq!(heard.lock().len(), 1, "{:?}", heard.lock());
}

#[test]
fn a_clock_that_is_set_back_fires_a_timer_when_it_comes_to_its_time_again_and_stops_nothing() {
    let (mut task, clock, heard) = alarmed();
    drive(&mut task, &clock, 90 * time::SECOND);
    clock.step(-60 * time::SECOND);
    drive(&mut task, &clock, 159 * time::SECOND);
    assert!(heard.lock().is_empty(), "{:?}", heard.lock());
    drive(&mut task, &clock, 171 * time::SECOND);
    assert_eq!(*heard.lock(), ["rings at 100 s"]);
}

/// Cannot be snapshotted, at the barrier or behind it.
struct Unsaved {
    at_barrier: bool,
    why: fn() -> Error,
}

impl Operator for Unsaved {
    fn process(&mut self, _: usize, _: Batch, _: &mut OperatorContext<'_>) -> Result<Step> {
        Ok(Step::Done)
    }

    fn snapshot(&mut self, _: CheckpointId) -> Result<OperatorSnapshot> {
        if self.at_barrier {
            return Err((self.why)());
        }
        let why = self.why;
        let task = move |_: &SnapshotSite| Err(why());
        Ok(OperatorSnapshot { tasks: vec![Box::new(task)], ..OperatorSnapshot::default() })
    }
}

/// Whether the task declines and whether it fails, when a barrier comes to an operator.
fn unsaved(at_barrier: bool, why: fn() -> Error) -> (bool, bool) {
    let (channel, mailbox) = (Channel::new(ChannelBounds::default()), Mailbox::new(Waker::new(|| {})));
    channel.try_send(Element::Barrier(FIRST));
    let told = Arc::new(Mutex::new((false, false)));
    let telling = told.clone();
    let reports: Reports = Arc::new(move |_, report| match report {
        FromTask::Declined { .. } => telling.lock().0 = true,
        FromTask::Failed(_) => telling.lock().1 = true,
        _ => {}
    });
    let operator = Box::new(Unsaved { at_barrier, why });
    let mut task = reporting_task(reports, ManualClock::new(0), operator, mailbox, channel, None);
    let failed = loop {
        match task.poll() {
            Ok(TaskPoll::Ready) => {}
            Ok(_) => break false,
            Err(_) => break true,
        }
    };
    let (declined, told_failed) = *told.lock();
    (declined, failed || told_failed)
}

#[test]
fn what_no_later_checkpoint_can_mend_fails_the_task_and_is_not_declined_for_ever() {
    let (mistakes, world): ([fn() -> Error; 2], fn() -> Error) =
        ([|| Error::internal("no state was named"), || Error::user("cannot be encoded")], || {
            Error::external("the disk is full")
        });
    for at_barrier in [true, false] {
        for mistake in mistakes {
            assert!(unsaved(at_barrier, mistake).1, "at the barrier: {at_barrier}");
        }
        assert_eq!(unsaved(at_barrier, world), (true, false), "at the barrier: {at_barrier}");
    }
}
