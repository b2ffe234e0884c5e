//! A checkpoint's way: triggered, acknowledged by every task, entered into the log, committed; or
//! aborted on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::phase::AfterCancel;
use super::{Coordinator, Phase};
use crate::checkpoint::{Barrier, CheckpointId, FileHandle};
use crate::cluster::decision::{Action, CheckpointContent, Outcome};
use crate::cluster::pending::PendingCheckpoint;
use crate::cluster::restart::doubled;
use crate::cluster::store_wait::{Rarely, StoreDecision};
use crate::cluster::{Cause, TaskBlame, ToTask};
use crate::time::{Micros, SECOND};
use crate::{ErrorKind, Result};

/// The longest wait before a last checkpoint is tried again, unless the interval is longer.
const RETRY_MAX: Micros = 10 * SECOND;

/// A checkpoint that every task acknowledged, on its way into the log.
pub(super) struct Publishing {
    pub(super) content: CheckpointContent,
    /// The store did not say whether it is there: when to find out. `None`: somebody is at it.
    pub(super) settle_at: Option<Micros>,
}

impl Publishing {
    fn is_of(&self, checkpoint: CheckpointId) -> bool {
        self.content.checkpoint == checkpoint
    }
}

impl Coordinator {
    /// Aborts the pending checkpoint when it has taken too long.
    pub(super) fn abort_late(&mut self, now: Micros) {
        let late = |pending: &mut PendingCheckpoint| now >= pending.started + self.config.checkpoint_timeout;
        if let Some(pending) = self.pending.take_if(late) {
            let reason = format!("timed out; not acknowledged by {}", pending.missing());
            self.checkpoint_failed(now, pending.checkpoint, &reason);
        }
    }

    /// Starts a checkpoint. `last`: the job may end after it.
    pub(super) fn trigger(&mut self, now: Micros, last: bool) {
        let checkpoint = CheckpointId { generation: self.generation, number: self.next_number };
        self.next_number += 1;
        self.next_trigger_at = now + self.config.checkpoint_interval;
        let enumerators = self.sources.iter().map(|(uid, source)| (uid.clone(), source.snapshot())).collect();
        self.pending = Some(PendingCheckpoint::new(checkpoint, now, self.alive.clone(), enumerators));
        if last {
            self.last = Some(checkpoint);
        }
        let barrier = Barrier { checkpoint, builds_on: self.last_published };
        // Sources last: whoever gets a barrier mostly knows which shared files exist by then.
        for wants_source in [false, true] {
            for index in 0..self.roles.len() {
                if self.roles[index].source.is_some() == wants_source {
                    let trigger = ToTask::Trigger { barrier, known: self.known.clone() };
                    self.actions.push_back(Action::ToTask(self.task_id(index), trigger));
                }
            }
        }
    }

    /// Every task has acknowledged.
    pub(super) fn publish(&mut self, complete: PendingCheckpoint) {
        let uids = self.roles.iter().map(|role| (role.id.chain, role.uids.clone())).collect();
        let (content, released) = complete.into_content(&uids, self.commits.waiting().clone());
        for (uid, splits) in released {
            if let Some(source) = self.sources.get_mut(&uid) {
                source.hold_released(content.checkpoint, splits);
            }
        }
        self.actions.push_back(Action::Publish(Box::new(content.clone())));
        self.publishing = Some(Publishing { content, settle_at: None });
    }

    /// The checkpoint stands in the log.
    pub(super) fn published(
        &mut self,
        now: Micros,
        checkpoint: CheckpointId,
        known: Arc<BTreeMap<String, FileHandle>>,
    ) -> Result<()> {
        let Some(Publishing { content, .. }) = self.publishing.take_if(|p| p.is_of(checkpoint)) else {
            return Ok(());
        };
        self.last_published = Some(checkpoint);
        if self.phase != Phase::Running {
            // Its tasks are gone; the restore that follows takes it up.
            return Ok(());
        }
        self.failures_in_row = 0;
        self.failures_said = Rarely::default();
        self.known = known;
        self.commits.add(checkpoint, content.committables());
        self.next_trigger_at = self.next_trigger_at.max(now);
        self.tell_all(&ToTask::Completed(checkpoint));
        let uids: Vec<_> = self.sources.keys().cloned().collect();
        for uid in uids {
            let effects = match self.sources.get_mut(&uid) {
                Some(source) => source.checkpoint_completed(checkpoint)?,
                None => Vec::new(),
            };
            self.source_effects(&uid, effects);
        }
        self.commit_next();
        Ok(())
    }

    /// The checkpoint does not stand in the log, and never will.
    pub(super) fn not_published(&mut self, now: Micros, checkpoint: CheckpointId, error: &str) {
        if self.publishing.take_if(|p| p.is_of(checkpoint)).is_some() && self.phase == Phase::Running {
            self.checkpoint_failed(now, checkpoint, error);
        }
    }

    /// Nobody knows whether the checkpoint stands in the log. Tasks are told nothing and no other
    /// one begins until that is found out.
    pub(super) fn publish_in_doubt(&mut self, now: Micros, checkpoint: CheckpointId, error: &str) {
        if self.phase != Phase::Running {
            self.publishing.take_if(|p| p.is_of(checkpoint));
            return;
        }
        let retry_at = self.retry_at(now);
        let Some(publishing) = self.publishing.as_mut().filter(|p| p.is_of(checkpoint)) else { return };
        publishing.settle_at = Some(retry_at);
        self.count_failure(now, &format!("checkpoint {checkpoint} may be published or not: {error}"));
    }

    /// Has somebody find out about a publication in doubt, when it is time.
    pub(super) fn settle_due(&mut self, now: Micros) {
        if let Some(publishing) = &mut self.publishing
            && publishing.settle_at.take_if(|at| *at <= now).is_some()
        {
            self.actions.push_back(Action::Settle(publishing.content.checkpoint));
        }
    }

    /// The checkpoint is aborted: the tasks are told.
    pub(super) fn checkpoint_failed(&mut self, now: Micros, checkpoint: CheckpointId, reason: &str) {
        self.last = self.last.filter(|&last| last != checkpoint);
        for source in self.sources.values_mut() {
            source.checkpoint_aborted(checkpoint);
        }
        self.tell_all(&ToTask::Aborted(checkpoint));
        if self.stop_asked || self.data_ended.len() == self.roles.len() {
            self.next_trigger_at = self.retry_at(now);
        }
        self.count_failure(now, &format!("checkpoint {checkpoint}: {reason}"));
    }

    /// Soon at first, and with every failure in a row less so, up to the interval.
    fn retry_at(&self, now: Micros) -> Micros {
        let interval = self.config.checkpoint_interval;
        now + doubled(interval.min(SECOND), self.failures_in_row).min(interval.max(RETRY_MAX))
    }

    /// Failures are counted and said; so many in a row end the job, if somebody has said how many.
    fn count_failure(&mut self, now: Micros, reason: &str) {
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        self.failures += 1;
        let in_row = self.failures_in_row;
        if let Some(unsaid) = self.failures_said.say(now) {
            tracing::warn!(reason, in_row, unsaid, "a checkpoint failed; the job goes on");
        }
        if self.config.checkpoint_failures_max.is_some_and(|max| in_row >= max) {
            let error = format!("{in_row} checkpoints failed in a row, the last: {reason}");
            let outcome = Outcome::Failed { error, blame: TaskBlame::External };
            self.cancel(now, AfterCancel::Finish(outcome));
        }
    }

    /// Whether a checkpoint is published and nothing up to it is uncommitted.
    pub(super) fn is_settled(&self, checkpoint: CheckpointId) -> bool {
        self.last_published >= Some(checkpoint) && self.commits.are_done_up_to(checkpoint)
    }

    /// Has the oldest checkpoint committed that is not, if none is under way.
    pub(super) fn commit_next(&mut self) {
        if let Some((checkpoint, committables)) = self.commits.next() {
            self.actions.push_back(Action::Commit(checkpoint, committables));
        }
    }

    /// A commit did not come to its end. One that the store kept from it is made again while the job
    /// runs on; any other is the attempt's failure.
    pub(super) fn commit_failed(&mut self, now: Micros, cause: Cause) {
        if cause.kind != ErrorKind::Store {
            return self.fail(now, cause);
        }
        if let StoreDecision::RetryAt(at) = self.commit_wait.failed(now, !cause.retryable) {
            self.commit_at = Some(at);
        }
        if let Some(unsaid) = self.commit_wait.say(now) {
            tracing::warn!(error = cause.error, unsaid, "cannot commit; the job goes on and tries again");
        }
    }

    /// A commit is done and logged.
    pub(super) fn committed(&mut self, checkpoint: CheckpointId) {
        self.commit_wait.answered();
        self.commits.done(checkpoint);
        self.commit_next();
    }
}
