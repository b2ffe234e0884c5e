//! The coordinator of one job: a pure state machine. Events in, actions out; no clock, no thread,
//! no I/O. Whoever drives it carries the actions out and brings their results back as events.
//!
//! Its rules:
//! - one checkpoint at a time: triggered, acknowledged by every task, published, committed;
//! - a checkpoint that is declined, late or not published is aborted, and the tasks are told;
//! - while nobody knows whether a checkpoint is published no other one begins, and none is restored;
//! - commits are made in the order of their checkpoints, and known only when they are logged;
//! - a bounded job ends after a checkpoint that was taken after every end of data has committed;
//! - a task that fails stops all tasks; the restart strategy decides what follows.

mod checkpoints;
mod commits;
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
use super::source_coordinator::{SourceCoordinator, SourceEffect, SourceRole};
use super::{FromTask, TaskBlame, TaskId, ToTask};
use crate::checkpoint::{CheckpointId, FileHandle};
use crate::graph::Uid;
use crate::source::EnumeratorEvent;
use crate::time::Micros;
use crate::{Error, Result};

/// The coordinator of one job.
pub struct Coordinator {
    config: CoordinatorConfig,
    generation: u64,
    roles: Vec<TaskRole>,
    sources: BTreeMap<Uid, SourceCoordinator>,
    phase: Phase,
    attempt: u64,
    restarts: u32,
    running: BTreeSet<TaskId>,
    /// Tasks of this attempt whose thread is not gone.
    alive: BTreeSet<TaskId>,
    data_ended: BTreeSet<TaskId>,
    pending: Option<PendingCheckpoint>,
    publishing: Option<Publishing>,
    next_number: u64,
    next_trigger_at: Micros,
    failures_in_row: u32,
    known: Arc<BTreeMap<String, FileHandle>>,
    commits: Commits,
    stop_asked: bool,
    /// The checkpoint after which the job may end or stop.
    last: Option<CheckpointId>,
    last_published: Option<CheckpointId>,
    restored_from: Option<CheckpointId>,
    actions: VecDeque<Action>,
}

impl Coordinator {
    /// A coordinator of `generation` that waits for [`Event::Restored`].
    pub fn new(
        config: CoordinatorConfig,
        generation: u64,
        roles: Vec<TaskRole>,
        sources: BTreeMap<Uid, SourceRole>,
    ) -> Coordinator {
        let coordinated = |(uid, role): (Uid, _)| (uid.clone(), SourceCoordinator::new(uid, role));
        let sources = sources.into_iter().map(coordinated).collect();
        Coordinator {
            config,
            generation,
            roles,
            sources,
            phase: Phase::Restoring,
            attempt: 0,
            restarts: 0,
            running: BTreeSet::new(),
            alive: BTreeSet::new(),
            data_ended: BTreeSet::new(),
            pending: None,
            publishing: None,
            next_number: 1,
            next_trigger_at: Micros::MAX,
            failures_in_row: 0,
            known: Arc::default(),
            commits: Commits::default(),
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

    /// The newest checkpoint that is published.
    pub fn last_published(&self) -> Option<CheckpointId> {
        self.last_published
    }

    /// When the coordinator wants a [`Event::Tick`]; `None`: not by time.
    pub fn tick_at(&self) -> Option<Micros> {
        match &self.phase {
            Phase::Delayed { until } => self.publishing.is_none().then_some(*until),
            Phase::Running => {
                let timeout =
                    self.pending.as_ref().map(|pending| pending.started + self.config.checkpoint_timeout);
                let trigger =
                    (self.pending.is_none() && self.publishing.is_none()).then_some(self.next_trigger_at);
                let settle = self.publishing.as_ref().and_then(|publishing| publishing.settle_at);
                let trigger = trigger.filter(|&at| at < Micros::MAX);
                [timeout, trigger, settle].into_iter().flatten().min()
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
            self.fail(&error.to_string(), blame_of(&error), error.is_retryable());
        }
        self.actions.drain(..).collect()
    }

    fn dispatch(&mut self, now: Micros, event: Event) -> Result<()> {
        match event {
            Event::Restored(restored) => self.restored(now, restored)?,
            Event::RestoreFailed { error, fenced: true, .. } => self.finish(Outcome::Fenced { error }),
            Event::RestoreFailed { error, retryable: true, .. } => {
                self.restart_or_finish(now, error, TaskBlame::External);
            }
            Event::RestoreFailed { error, .. } => {
                self.finish(Outcome::Failed { error, blame: TaskBlame::User });
            }
            Event::Task(id, message) if id.attempt == self.attempt => self.task(now, id, message)?,
            Event::Task(..) => {}
            Event::Discovered(uid, facts) => {
                if matches!(self.phase, Phase::Running) {
                    self.source_event(&uid, EnumeratorEvent::Discovered(facts))?;
                }
            }
            Event::Published { checkpoint, known } => self.published(now, checkpoint, known)?,
            Event::PublishFailed { checkpoint, error, fenced } => {
                if fenced {
                    self.cancel(AfterCancel::Finish(Outcome::Fenced { error }));
                } else {
                    self.not_published(now, checkpoint, &error);
                }
            }
            Event::PublishInDoubt { checkpoint, error } => self.publish_in_doubt(now, checkpoint, &error),
            Event::Committed(checkpoint) => self.committed(checkpoint),
            Event::CommitFailed { checkpoint, error, fenced } => {
                self.commits.failed(checkpoint);
                let error = format!("commit of checkpoint {checkpoint}: {error}");
                if fenced {
                    self.cancel(AfterCancel::Finish(Outcome::Fenced { error }));
                } else {
                    self.fail(&error, TaskBlame::External, true);
                }
            }
            Event::Tidied => {
                if let Phase::Tidying(outcome) = self.phase.clone() {
                    self.finish(outcome);
                }
            }
            Event::Stop => self.stop_asked = true,
            Event::Abandon => self.cancel(AfterCancel::Finish(Outcome::Abandoned)),
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
            FromTask::Failed { error, blame, retryable } => {
                let error = format!("task {id}: {error}");
                // A task that cannot open what it restores, for good: the checkpoint is damaged.
                let opening = !self.running.contains(&id);
                match self.restored_from.filter(|_| opening && !retryable && blame == TaskBlame::External) {
                    Some(checkpoint) => {
                        self.actions.push_back(Action::PassOver(checkpoint, error.clone()));
                        self.fail(&error, blame, true);
                    }
                    None => self.fail(&error, blame, retryable),
                }
            }
            FromTask::Ended => {}
            FromTask::Stopped => {
                self.alive.remove(&id);
                if self.alive.is_empty() {
                    self.all_stopped(now);
                } else if matches!(self.phase, Phase::Running) {
                    self.fail(&format!("task {id} stopped before its end"), TaskBlame::Internal, true);
                }
            }
        }
        Ok(())
    }

    /// Does what time and the state of things ask for.
    fn advance(&mut self, now: Micros) {
        if let Phase::Delayed { until } = self.phase
            && until <= now
            && self.publishing.is_none()
        {
            self.phase = Phase::Restoring;
            self.actions.push_back(Action::Restore);
        }
        if self.stop_asked && matches!(self.phase, Phase::Delayed { .. }) {
            self.finish(Outcome::Stopped);
        }
        if self.phase == Phase::Running {
            self.abort_late(now);
        }
        if self.phase != Phase::Running {
            return;
        }
        self.settle_due(now);
        if self.last.is_some_and(|last| self.is_settled(last)) {
            self.leave();
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

fn blame_of(error: &Error) -> TaskBlame {
    match FromTask::failed(error) {
        FromTask::Failed { blame, .. } => blame,
        _ => TaskBlame::Internal,
    }
}
