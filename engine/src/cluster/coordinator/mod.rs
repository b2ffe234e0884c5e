//! The coordinator of one job: a pure state machine. Events in, actions out; no clock, no thread,
//! no I/O. Whoever drives it carries the actions out and brings their results back as events.
//!
//! Its rules:
//! - one checkpoint at a time: triggered, acknowledged by every task, published, committed;
//! - a checkpoint that is declined, late or not published is aborted, and the tasks are told;
//! - while nobody knows whether a checkpoint is published no other one begins, and none is restored;
//! - commits are made in the order of their checkpoints, and known only when they are logged;
//! - a bounded job ends after a checkpoint that was taken after every end of data has committed;
//! - a task that fails stops all tasks; the restart strategy decides what follows;
//! - a checkpoint store that is away stops checkpoints and commits, not the job; a restore waits for
//!   it, and no restart strategy is asked.

mod awaited_end;
mod checkpoints;
mod commits;
#[cfg(test)]
mod discovery_tests;
mod phase;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use self::checkpoints::Publishing;
use self::commits::Commits;
use self::phase::{AfterCancel, Phase};
use super::decision::{Action, CoordinatorConfig, Event, Outcome, RestoredJob, TaskRole};
use super::pending::PendingCheckpoint;
use super::restart::RestartHistory;
use super::source_coordinator::{SourceCoordinator, SourceEffect, SourceRole};
use super::store_wait::{Rarely, StoreDecision, StoreWait};
use super::{Cause, FromTask, TaskId, ToTask};
use crate::checkpoint::{CheckpointId, FileHandle};
use crate::graph::Uid;
use crate::source::EnumeratorEvent;
use crate::time::Micros;
use crate::{Error, ErrorKind, Result};

/// The coordinator of one job.
pub struct Coordinator {
    config: CoordinatorConfig,
    generation: u64,
    roles: Vec<TaskRole>,
    sources: BTreeMap<Uid, SourceCoordinator>,
    phase: Phase,
    attempt: u64,
    restarts: u32,
    history: RestartHistory,
    store: StoreWait,
    running: BTreeSet<TaskId>,
    /// Since when all tasks of this attempt run.
    healthy_since: Option<Micros>,
    /// Tasks of this attempt whose thread is not gone.
    alive: BTreeSet<TaskId>,
    data_ended: BTreeSet<TaskId>,
    pending: Option<PendingCheckpoint>,
    publishing: Option<Publishing>,
    next_number: u64,
    next_trigger_at: Micros,
    failures_in_row: u32,
    failures: u64,
    failures_said: Rarely,
    known: Arc<BTreeMap<String, FileHandle>>,
    commits: Commits,
    /// When a commit is tried again that the store did not take.
    commit_at: Option<Micros>,
    commit_wait: StoreWait,
    stop_asked: bool,
    /// The checkpoint after which the job may end or stop.
    last: Option<CheckpointId>,
    last_published: Option<CheckpointId>,
    restored_from: Option<CheckpointId>,
    actions: VecDeque<Action>,
}

impl Coordinator {
    /// A coordinator of `generation` that waits for [`Event::Restored`]; it is `now`.
    pub fn new(
        now: Micros,
        config: CoordinatorConfig,
        generation: u64,
        roles: Vec<TaskRole>,
        sources: BTreeMap<Uid, SourceRole>,
    ) -> Coordinator {
        let coordinated = |(uid, role): (Uid, _)| (uid.clone(), SourceCoordinator::new(uid, role));
        let sources = sources.into_iter().map(coordinated).collect();
        Coordinator {
            store: StoreWait::at_start(now + config.store_wait_at_start),
            config,
            generation,
            roles,
            sources,
            phase: Phase::Restoring,
            attempt: 0,
            restarts: 0,
            history: RestartHistory::default(),
            running: BTreeSet::new(),
            healthy_since: None,
            alive: BTreeSet::new(),
            data_ended: BTreeSet::new(),
            pending: None,
            publishing: None,
            next_number: 1,
            next_trigger_at: Micros::MAX,
            failures_in_row: 0,
            failures: 0,
            failures_said: Rarely::default(),
            known: Arc::default(),
            commits: Commits::default(),
            commit_at: None,
            commit_wait: StoreWait::without_end(),
            stop_asked: false,
            last: None,
            last_published: None,
            restored_from: None,
            actions: VecDeque::new(),
        }
    }

    /// How often tasks were restarted.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// How many checkpoints came to nothing, or to a doubt, since the beginning.
    pub fn checkpoint_failures(&self) -> u64 {
        self.failures
    }

    /// The newest checkpoint that is published.
    pub fn last_published(&self) -> Option<CheckpointId> {
        self.last_published
    }

    /// When the coordinator wants a [`Event::Tick`]; `None`: not by time.
    pub fn tick_at(&self) -> Option<Micros> {
        match &self.phase {
            Phase::Delayed { until, .. } => self.publishing.is_none().then_some(*until),
            Phase::Cancelling { deadline, .. } => Some(*deadline),
            Phase::Running => {
                let timeout =
                    self.pending.as_ref().map(|pending| pending.started + self.config.checkpoint_timeout);
                let trigger =
                    (self.pending.is_none() && self.publishing.is_none()).then_some(self.next_trigger_at);
                let settle = self.publishing.as_ref().and_then(|publishing| publishing.settle_at);
                let trigger = trigger.filter(|&at| at < Micros::MAX);
                [timeout, trigger, settle, self.commit_at].into_iter().flatten().min()
            }
            _ => None,
        }
    }

    /// Takes an event in at processing time `now`.
    ///
    /// # Errors
    /// An internal error when an enumerator fails in a way that is not its job's failure.
    pub fn handle(&mut self, now: Micros, event: Event) -> Vec<Action> {
        if self.phase != Phase::Done
            && let Err(error) = self.dispatch(now, event)
        {
            self.fail(now, Cause::from(&error));
        }
        self.actions.drain(..).collect()
    }

    fn dispatch(&mut self, now: Micros, event: Event) -> Result<()> {
        match event {
            Event::Restored(restored) => self.restored(now, restored)?,
            Event::RestoreFailed { cause, fenced: true, .. } => {
                self.finish(Outcome::Fenced { error: cause.error });
            }
            Event::RestoreFailed { cause, refused: true, .. } => {
                self.finish(Outcome::Refused { error: cause.error });
            }
            Event::RestoreFailed { cause, .. } => self.restore_failed(now, cause),
            Event::Task(id, message) if id.attempt == self.attempt => self.task(now, id, message)?,
            Event::Task(..) => {}
            Event::Discovered(uid, facts) => self.discovered(&uid, facts)?,
            Event::Published { checkpoint, known } => self.published(now, checkpoint, known)?,
            Event::PublishFailed { checkpoint, error, fenced } => {
                if fenced {
                    self.cancel(now, AfterCancel::Finish(Outcome::Fenced { error }));
                } else {
                    self.not_published(now, checkpoint, &error);
                }
            }
            Event::PublishInDoubt { checkpoint, error } => self.publish_in_doubt(now, checkpoint, &error),
            Event::Committed(checkpoint) => self.committed(checkpoint),
            Event::CommitFailed { checkpoint, cause, fenced } => {
                self.commits.failed(checkpoint);
                let cause = cause.of(format_args!("commit of checkpoint {checkpoint}"));
                if fenced {
                    self.cancel(now, AfterCancel::Finish(Outcome::Fenced { error: cause.error }));
                } else {
                    self.commit_failed(now, cause);
                }
            }
            Event::Tidied => {
                if let Phase::Tidying(outcome) = self.phase.clone() {
                    self.finish(outcome);
                }
            }
            Event::Stop => self.stop_asked = true,
            Event::Abandon => self.cancel(now, AfterCancel::Finish(Outcome::Abandoned)),
            Event::Tick => {}
        }
        self.advance(now);
        Ok(())
    }

    fn restored(&mut self, now: Micros, restored: RestoredJob) -> Result<()> {
        if self.phase != Phase::Restoring {
            return Ok(());
        }
        self.known = restored.known;
        self.next_number = self.next_number.max(restored.next_number);
        self.commits = Commits::restored(restored.uncommitted);
        self.last_published = restored.checkpoint;
        self.restored_from = restored.checkpoint;
        self.attempt += 1;
        self.phase = Phase::Running;
        self.running.clear();
        self.healthy_since = None;
        self.commit_at = None;
        self.data_ended.clear();
        self.alive = (0..self.roles.len()).map(|index| self.task_id(index)).collect();
        self.next_trigger_at = now + self.config.checkpoint_interval;
        self.actions.push_back(Action::Deploy { attempt: self.attempt });
        let uids: Vec<_> = self.sources.keys().cloned().collect();
        for uid in uids {
            let splits = restored.splits.get(&uid).cloned().unwrap_or_default();
            let state = restored.enumerators.get(&uid).map(Vec::as_slice);
            let effects = match self.sources.get_mut(&uid) {
                Some(source) => source.start(state, splits)?,
                None => Vec::new(),
            };
            self.source_effects(&uid, effects);
        }
        self.commit_next();
        Ok(())
    }

    fn task_id(&self, index: usize) -> TaskId {
        TaskId { attempt: self.attempt, ..self.roles[index].id.clone() }
    }

    fn task(&mut self, now: Micros, id: TaskId, message: FromTask) -> Result<()> {
        match message {
            FromTask::Running => {
                self.running.insert(id);
                if self.running.len() == self.roles.len() {
                    // From now on the store is known to be the right one.
                    self.store = StoreWait::without_end();
                    self.healthy_since = Some(now);
                }
            }
            FromTask::Acknowledged { checkpoint, parts, released, finished, .. } => {
                let Some(pending) = self.pending.as_mut().filter(|pending| pending.checkpoint == checkpoint)
                else {
                    return Ok(());
                };
                if pending.acknowledge(&id, parts, released, finished)
                    && let Some(complete) = self.pending.take()
                {
                    self.publish(complete);
                }
            }
            FromTask::Declined { checkpoint, reason, .. } => {
                if self.pending.as_ref().is_some_and(|pending| pending.checkpoint == checkpoint) {
                    self.pending = None;
                    self.checkpoint_failed(now, checkpoint, &format!("task {id}: {reason}"));
                }
            }
            FromTask::DataEnded => {
                self.data_ended.insert(id);
            }
            FromTask::SplitFinished { uid, split } => {
                self.source_event(&uid, EnumeratorEvent::Finished { subtask: id.subtask, split })?;
            }
            FromTask::SourceMessage { uid, message } => {
                self.source_event(&uid, EnumeratorEvent::FromReader { subtask: id.subtask, message })?;
            }
            FromTask::Failed(cause) => {
                let opening = !self.running.contains(&id);
                let cause = cause.of(format_args!("task {id}"));
                // Only what was read and is not what was written: another checkpoint may be whole.
                match self.restored_from.filter(|_| opening && cause.kind == ErrorKind::Damaged) {
                    Some(checkpoint) => {
                        self.actions.push_back(Action::PassOver(checkpoint, cause.error.clone()));
                        self.fail(now, Cause { retryable: true, ..cause });
                    }
                    None => self.fail(now, cause),
                }
            }
            FromTask::Ended => {}
            FromTask::Stopped => {
                self.alive.remove(&id);
                if self.alive.is_empty() {
                    self.all_stopped(now);
                } else if matches!(self.phase, Phase::Running) {
                    let error = Error::internal(format!("task {id} stopped before its end"));
                    self.fail(now, Cause { retryable: true, ..Cause::from(&error) });
                }
            }
        }
        Ok(())
    }

    /// Does what time and the state of things ask for.
    fn advance(&mut self, now: Micros) {
        self.advance_phase(now);
        if self.phase == Phase::Running {
            self.abort_late(now);
        }
        if self.phase != Phase::Running {
            return;
        }
        self.settle_due(now);
        if self.commit_at.take_if(|at| *at <= now).is_some() {
            self.commit_next();
        }
        if self.last.is_some_and(|last| self.is_settled(last)) {
            self.leave(now);
            return;
        }
        let all_ended = self.data_ended.len() == self.roles.len();
        let urgent = (all_ended || self.stop_asked) && self.last.is_none();
        let idle =
            self.pending.is_none() && self.publishing.is_none() && self.running.len() == self.roles.len();
        let due = now >= self.next_trigger_at && self.last.is_none();
        // After a failed last checkpoint the next try waits for its time.
        if idle && (due || urgent && self.failures_in_row == 0) {
            self.trigger(now, all_ended || self.stop_asked);
        }
    }

    fn tell_all(&mut self, message: &ToTask) {
        for id in &self.alive {
            self.actions.push_back(Action::ToTask(id.clone(), message.clone()));
        }
    }

    /// Heard in every phase: what is found between two attempts is what the next one starts from.
    fn discovered(&mut self, uid: &Uid, facts: Vec<u8>) -> Result<()> {
        let running = self.phase == Phase::Running;
        let Some(source) = self.sources.get_mut(uid) else {
            return Err(Error::internal(format!("there is no source {uid}")));
        };
        let effects = source.discovered(facts, running)?;
        self.source_effects(uid, effects);
        Ok(())
    }

    fn source_event(&mut self, uid: &Uid, event: EnumeratorEvent) -> Result<()> {
        let Some(source) = self.sources.get_mut(uid) else {
            return Err(Error::internal(format!("there is no source {uid}")));
        };
        let effects = source.handle(event)?;
        self.source_effects(uid, effects);
        Ok(())
    }

    fn source_effects(&mut self, uid: &Uid, effects: Vec<SourceEffect>) {
        for SourceEffect { subtask, command } in effects {
            let index =
                self.roles.iter().position(|r| r.source.as_ref() == Some(uid) && r.id.subtask == subtask);
            if let Some(index) = index {
                let id = self.task_id(index);
                self.actions.push_back(Action::ToTask(id, command));
            }
        }
    }
}
