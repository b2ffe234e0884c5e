//! A task: one parallel instance of a chain, as a state machine.
//!
//! [`Task::poll`] does a bounded amount of work and never blocks. Whoever drives it (a thread, or
//! the simulator) calls it again while it is ready, and otherwise when its waker was used or the
//! time that it named has come. In order: commands, what full channels refused, what is left in
//! the chain, due wake-ups, then one new event from the gate or the source. When there is nothing
//! it flushes what the edges kept back, and waits.
//!
//! Before a barrier, and before the news that its input is idle, the operators emit what they have
//! gathered or under way ([`Operator::flush`](crate::operator::Operator::flush)). One that waits for
//! work elsewhere ([`Step::Wait`](crate::operator::Step::Wait)) parks the chain: the task sleeps, and
//! obeys commands, until the operator's waker is used.
//!
//! Barriers are taken when the chain is empty, or between the steps of a firing whose operators
//! have what is left of it in their state ([`crate::operator::Operator::is_interruptible`]): so a watermark that
//! fires a million windows holds no checkpoint up. The pause that a checkpoint costs is the freeze of
//! the operators' state; flush and upload go to the background.
//!
//! While an operator is full ([`Operator::is_full`](crate::operator::Operator::is_full)) the task
//! takes nothing from its head, unless a checkpoint was triggered whose barrier it has not passed:
//! then everything up to the barrier is taken, for behind it may be the room.

mod commands;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::commands::KnownFiles;
use super::chain::Chain;
use super::input_gate::GateEvent;
use super::source_head::HeadEvent;
use super::task_environment::{Head, Opener, TaskEnvironment, TaskMetrics};
use super::task_snapshot::{TaskSnapshot, Uploader, can_pass};
use super::unsettled::Unsettled;
use super::{Doing, EdgeWriter, Element, Mailbox, Now};
use crate::checkpoint::{Barrier, CancelOnDrop, Cancellation, CheckpointId, FileHandle};
use crate::cluster::{FromTask, TaskId, ToTask};
use crate::operator::OutputIndex;
use crate::time::Micros;
use crate::{Error, Result};

/// Chain steps in one poll: enough to make the poll's own cost small.
const STEPS_PER_POLL_MAX: usize = 64;

/// What a poll answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskPoll {
    /// There is more to do.
    Ready,
    /// Poll again when woken, or at this monotonic time.
    Waiting(Option<Micros>),
    /// The task is over.
    Finished,
}

/// What a task has once it is open.
struct Body {
    head: Head,
    chain: Chain,
    edges: Vec<EdgeWriter>,
}

/// What stands before the task until the operators have flushed what must not be overtaken.
enum Passing {
    Barrier {
        barrier: Barrier,
        known: Arc<BTreeMap<String, FileHandle>>,
        /// When the task began to stand still for it.
        since: Micros,
    },
    Idle,
}

/// A parallel instance of a chain.
pub struct Task {
    id: TaskId,
    environment: TaskEnvironment,
    mailbox: Arc<Mailbox>,
    opener: Option<Opener>,
    body: Option<Body>,
    /// Set when an operator's waker was used.
    operators_woken: Arc<AtomicBool>,
    /// What a source is told and has not done.
    orders: VecDeque<ToTask>,
    /// The newest checkpoint whose barrier is on its way here, as messages say.
    announced: Option<CheckpointId>,
    /// The shared files of the checkpoint that the announced one builds on.
    known: KnownFiles,
    /// The last barrier that came: what is triggered up to it is over here.
    passed: Option<CheckpointId>,
    unsettled: Unsettled,
    /// What is about to pass.
    passing: Option<Passing>,
    /// The newest checkpoint that is known to be aborted.
    aborted: Option<CheckpointId>,
    /// Checkpoints whose outcome is not known here: their uploads end with an abort, and with the task.
    uploads: BTreeMap<CheckpointId, CancelOnDrop>,
    /// Whether the head is idle, and which edges have been told so.
    head_idle: bool,
    idle_edges: Vec<bool>,
    data_ended: bool,
    finishing: bool,
    finished: bool,
    polled_at: Option<Now>,
    metrics: TaskMetrics,
}

impl Task {
    /// A task that opens with its first poll. `operators_woken` is set by its operators' wakers.
    pub fn new(
        id: TaskId,
        environment: TaskEnvironment,
        mailbox: Arc<Mailbox>,
        opener: Opener,
        operators_woken: Arc<AtomicBool>,
        metrics: TaskMetrics,
    ) -> Task {
        Task {
            id,
            environment,
            mailbox,
            opener: Some(opener),
            body: None,
            operators_woken,
            orders: VecDeque::new(),
            announced: None,
            known: KnownFiles::default(),
            passed: None,
            unsettled: Unsettled::default(),
            passing: None,
            aborted: None,
            uploads: BTreeMap::new(),
            head_idle: false,
            idle_edges: Vec::new(),
            data_ended: false,
            finishing: false,
            finished: false,
            polled_at: None,
            metrics,
        }
    }

    /// Who it is.
    pub fn id(&self) -> &TaskId {
        &self.id
    }

    fn report(&self, message: FromTask) {
        (self.environment.reports)(self.id.clone(), message);
    }

    /// Does a bounded amount of work.
    ///
    /// # Errors
    /// What an operator, a reader or an edge failed with; the task is over.
    pub fn poll(&mut self) -> Result<TaskPoll> {
        let probe = self.metrics.probe.clone();
        if let Some(opener) = self.opener.take() {
            probe.set(Doing::Opening, self.environment.clock.monotonic());
            let (head, mut chain, edges) = opener()?;
            chain.show_on(probe);
            self.body = Some(Body { head, chain, edges });
            self.report(FromTask::Running);
            return Ok(TaskPoll::Ready);
        }
        let Some(mut body) = self.body.take() else { return Ok(TaskPoll::Finished) };
        probe.set(Doing::Moving, self.environment.clock.monotonic());
        let polled = self.poll_body(&mut body);
        if let Ok(TaskPoll::Waiting(_)) = polled {
            probe.set(Doing::Waiting, self.environment.clock.monotonic());
        }
        if !self.finished {
            self.body = Some(body);
        }
        polled
    }

    fn poll_body(&mut self, body: &mut Body) -> Result<TaskPoll> {
        // What lasts is measured in monotonic time; what operators ask for is a processing time.
        let times = Now::of(self.environment.clock.as_ref());
        let now = times.monotonic;
        if self.polled_at.replace(times).is_some_and(|earlier| times.is_stepped_since(earlier)) {
            // The system's clock was set: who waits for a time looks again.
            self.operators_woken.store(true, Ordering::Release);
        }
        if !self.obey(body)? {
            self.finished = true;
            return Ok(TaskPoll::Finished);
        }
        if !drain(&mut body.edges) {
            // Whoever is not full gets what is there for it.
            flush(&mut body.edges)?;
            return Ok(TaskPoll::Waiting(None));
        }
        if body.chain.is_parked() {
            return self.poll_parked(body);
        }
        if body.chain.is_flushed()
            && let Some(passing) = self.passing.take()
        {
            self.pass(passing, body)?;
            return Ok(TaskPoll::Ready);
        }
        if !body.chain.is_done() {
            for _ in 0..STEPS_PER_POLL_MAX {
                body.chain.step(times.now, &mut body.edges)?;
                if self.passing.is_none() && body.chain.is_interruptible() && !self.interrupt(body, now)? {
                    self.finished = true;
                    return Ok(TaskPoll::Finished);
                }
                let is_over = body.chain.is_done() || body.chain.is_parked();
                let passes = self.passing.is_some() && body.chain.is_flushed();
                if is_over || passes || body.edges.iter().any(EdgeWriter::is_blocked) {
                    break;
                }
            }
            return Ok(TaskPoll::Ready);
        }
        if self.operators_woken.swap(false, Ordering::AcqRel) | body.chain.take_missed_wake() {
            body.chain.push_wake();
            return Ok(TaskPoll::Ready);
        }
        if body.chain.push_due(times.now) {
            return Ok(TaskPoll::Ready);
        }
        if body.chain.take_idle_change() {
            self.tell_idle(body)?;
            return Ok(TaskPoll::Ready);
        }
        let wait = match &mut body.head {
            Head::Gate(_) => self.poll_gate(body)?,
            Head::Source(_) => self.poll_source(body, times)?,
        };
        let Some(until) = wait else { return Ok(TaskPoll::Ready) };
        if self.finished {
            return Ok(TaskPoll::Finished);
        }
        flush(&mut body.edges)?;
        if !drain(&mut body.edges) {
            return Ok(TaskPoll::Ready);
        }
        let look_at = body.chain.wake_at().map(|at| times.look_at(at));
        Ok(TaskPoll::Waiting([until, look_at].into_iter().flatten().min()))
    }

    /// An operator waits for work elsewhere: what it emitted leaves, and nothing comes.
    fn poll_parked(&mut self, body: &mut Body) -> Result<TaskPoll> {
        if self.operators_woken.swap(false, Ordering::AcqRel) {
            body.chain.unpark();
            return Ok(TaskPoll::Ready);
        }
        flush(&mut body.edges)?;
        Ok(TaskPoll::Waiting(None))
    }

    /// Lets pass what the operators were flushed for.
    fn pass(&mut self, passing: Passing, body: &mut Body) -> Result<()> {
        match passing {
            Passing::Barrier { barrier, known, since } if self.aborted < Some(barrier.checkpoint) => {
                self.snapshot(barrier, known, since, body)
            }
            Passing::Barrier { .. } => Ok(()),
            Passing::Idle => self.send_idle(body, true),
        }
    }

    /// Tells the edges which of them are idle now: behind an idle head all are, behind an operator
    /// that makes watermarks those that its own rows do not reach. Before an edge no longer holds the
    /// watermark, the operators are flushed.
    fn tell_idle(&mut self, body: &mut Body) -> Result<()> {
        self.send_idle(body, false)?;
        if self.idle_now(body) != self.idle_edges {
            body.chain.push_flush();
            self.passing = Some(Passing::Idle);
        }
        Ok(())
    }

    fn idle_now(&self, body: &Body) -> Vec<bool> {
        let behind = body.chain.idle_edges(body.edges.len());
        behind.into_iter().map(|is_idle| is_idle || self.head_idle).collect()
    }

    /// Tells the edges that became idle, or active.
    fn send_idle(&mut self, body: &mut Body, idle: bool) -> Result<()> {
        let element = if idle { Element::Idle } else { Element::Active };
        let now = self.idle_now(body);
        self.idle_edges.resize(now.len(), false);
        for ((edge, told), now) in body.edges.iter_mut().zip(&mut self.idle_edges).zip(now) {
            if now == idle && *told != idle {
                edge.control(&element)?;
                *told = idle;
            }
        }
        Ok(())
    }

    /// Has the operators flushed before a barrier.
    fn begin_snapshot(&mut self, barrier: Barrier, body: &mut Body) {
        body.chain.push_flush();
        let (known, since) = (self.known.at(barrier), self.environment.clock.monotonic());
        self.passing = Some(Passing::Barrier { barrier, known, since });
    }

    /// Whether no row is to be taken: an operator is full, and no barrier is on its way.
    fn is_held(&self, body: &Body) -> bool {
        self.announced.is_none() && body.chain.is_full() && !body.chain.has_ended()
    }

    /// Returns `Some(until)` when there is nothing to do.
    fn poll_gate(&mut self, body: &mut Body) -> Result<Option<Option<Micros>>> {
        if self.is_held(body) {
            return Ok(Some(None));
        }
        let Head::Gate(gate) = &mut body.head else { return Ok(None) };
        match gate.next_event()? {
            GateEvent::Batch(input, batch) => body.chain.push_batch(input, batch),
            GateEvent::Watermark(watermark) => {
                self.metrics.watermark.set(watermark.0);
                body.chain.push_watermark(watermark, &mut body.edges);
            }
            GateEvent::Idle(idle) => {
                self.head_idle = idle;
                self.tell_idle(body)?;
            }
            GateEvent::Barrier(barrier) => {
                if !self.gate_barrier(barrier, body)? {
                    self.finished = true;
                    return Ok(Some(None));
                }
            }
            GateEvent::EndOfData(input) => {
                body.chain.push_end_of_data(input, &mut body.edges)?;
            }
            GateEvent::End => return self.end(body),
            GateEvent::Empty => {
                if body.chain.has_ended() && !self.data_ended {
                    self.data_ended = true;
                    self.report(FromTask::DataEnded);
                }
                return Ok(Some(None));
            }
        }
        Ok(None)
    }

    fn poll_source(&mut self, body: &mut Body, times: Now) -> Result<Option<Option<Micros>>> {
        if self.follow_orders(body, times.monotonic)? {
            return Ok(None);
        }
        let held = self.is_held(body);
        let Head::Source(head) = &mut body.head else { return Ok(None) };
        if self.finishing && head.is_finished() && !head.has_pending() {
            return self.end(body);
        }
        if held {
            return Ok(Some(None));
        }
        self.metrics.probe.enter(Doing::Reading);
        match head.next_event(times)? {
            HeadEvent::Batch(output, batch) => {
                body.chain.push_source_batch(OutputIndex(output), batch, &mut body.edges)?;
            }
            HeadEvent::Watermark(watermark) => {
                self.metrics.watermark.set(watermark.0);
                body.chain.push_watermark(watermark, &mut body.edges);
            }
            HeadEvent::Idle(idle) => {
                self.head_idle = idle;
                self.tell_idle(body)?;
            }
            HeadEvent::SplitFinished(split) => {
                let uid = head.uid.clone();
                self.report(FromTask::SplitFinished { uid, split });
            }
            HeadEvent::Message(message) => {
                let uid = head.uid.clone();
                self.report(FromTask::SourceMessage { uid, message });
            }
            HeadEvent::EndOfData => {
                body.chain.push_end_of_data(0, &mut body.edges)?;
            }
            HeadEvent::Again => {}
            HeadEvent::Waiting(until) => {
                if head.is_finished() && !self.data_ended {
                    self.data_ended = true;
                    self.report(FromTask::DataEnded);
                }
                return Ok(Some(until));
            }
        }
        Ok(None)
    }

    fn end(&mut self, body: &mut Body) -> Result<Option<Option<Micros>>> {
        for edge in &mut body.edges {
            edge.control(&Element::End)?;
        }
        if !drain(&mut body.edges) {
            return Err(Error::internal("an edge refused the end: rows after the end of data"));
        }
        self.finished = true;
        self.report(FromTask::Ended);
        Ok(Some(None))
    }

    /// A barrier has come on every channel. Returns `false` when the task is to stop at once.
    fn gate_barrier(&mut self, barrier: Barrier, body: &mut Body) -> Result<bool> {
        // What has come since this poll began saves work: a snapshot of what is aborted, files that
        // are in the store.
        if !self.obey(body)? {
            return Ok(false);
        }
        self.barrier(barrier, body)?;
        Ok(true)
    }

    /// Takes a barrier ahead of a long firing, if there is one. Returns `false` when the task is to
    /// stop at once.
    fn interrupt(&mut self, body: &mut Body, now: Micros) -> Result<bool> {
        match &mut body.head {
            Head::Gate(gate) => match gate.next_barrier() {
                Some(barrier) => self.gate_barrier(barrier, body),
                None => Ok(true),
            },
            Head::Source(_) => self.follow_orders(body, now).map(|_| true),
        }
    }

    fn snapshot(
        &mut self,
        barrier: Barrier,
        known: Arc<BTreeMap<String, FileHandle>>,
        since: Micros,
        body: &mut Body,
    ) -> Result<()> {
        let (checkpoint, now) = (barrier.checkpoint, self.environment.clock.monotonic());
        self.unsettled.add(checkpoint);
        self.metrics.probe.enter(Doing::Freezing);
        let frozen = TaskSnapshot::freeze(checkpoint, &mut body.head, &mut body.chain, now);
        for edge in &mut body.edges {
            edge.barrier(barrier)?;
        }
        self.metrics.pause.set(self.environment.clock.monotonic() - since);
        match frozen {
            Ok(frozen) => {
                let cancelled = Cancellation::default();
                self.uploads.insert(checkpoint, CancelOnDrop(cancelled.clone()));
                frozen.upload(Uploader {
                    environment: self.environment.clone(),
                    id: self.id.clone(),
                    known,
                    finished: self.data_ended,
                    written_bytes: self.metrics.written.clone(),
                    cancelled,
                });
            }
            Err(error) if !can_pass(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(task = %self.id, %checkpoint, %error, "checkpoint declined");
                let written = Vec::new();
                self.report(FromTask::Declined { checkpoint, reason: error.to_string(), written });
            }
        }
        Ok(())
    }
}

fn drain(edges: &mut [EdgeWriter]) -> bool {
    // Each is tried, also behind one that is blocked.
    let blocked = edges.iter_mut().filter_map(|edge| (!edge.drain()).then_some(())).count();
    blocked == 0
}

fn flush(edges: &mut [EdgeWriter]) -> Result<()> {
    edges.iter_mut().try_for_each(EdgeWriter::flush)
}
