//! How an attempt begins and ends: failures, restarts, leaving.

use super::Coordinator;
use crate::cluster::decision::{Action, Outcome};
use crate::cluster::restart::RestartDecision;
use crate::cluster::{TaskBlame, ToTask};
use crate::time::Micros;

/// Where a coordinator stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for `Restored`.
    Restoring,
    /// Tasks are deployed and run.
    Running,
    /// Tasks are told to stop; what follows when the last one has.
    Cancelling(AfterCancel),
    /// Waits to restart.
    Delayed { until: Micros },
    /// The sources were told to send the end.
    Ending,
    /// No task is left; what nobody needs is deleted from the store.
    Tidying(Outcome),
    /// Over.
    Done,
}

/// What follows when the last task has stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AfterCancel {
    /// A new attempt, if the restart strategy has one left.
    Restart(String, TaskBlame),
    /// The end.
    Finish(Outcome),
}

impl Coordinator {
    /// The attempt has failed.
    pub(super) fn fail(&mut self, error: &str, blame: TaskBlame, retryable: bool) {
        let after = if retryable {
            AfterCancel::Restart(error.to_string(), blame)
        } else {
            AfterCancel::Finish(Outcome::Failed { error: error.to_string(), blame })
        };
        tracing::error!(error, retryable, "task failed");
        self.cancel(after);
    }

    /// Stops all tasks; `after` follows.
    pub(super) fn cancel(&mut self, after: AfterCancel) {
        match &self.phase {
            Phase::Done => return,
            // The job's end is decided, and only the store is left untidy.
            Phase::Tidying(outcome) => {
                let outcome = outcome.clone();
                return self.finish(outcome);
            }
            // The first failure is the cause; only leaving for good overrides a restart.
            Phase::Cancelling(AfterCancel::Finish(_)) => return,
            Phase::Cancelling(AfterCancel::Restart(..)) if matches!(after, AfterCancel::Restart(..)) => {
                return;
            }
            _ => {}
        }
        self.pending = None;
        // One that is under way is heard of before a restore; of one in doubt the restore finds out.
        self.publishing.take_if(|publishing| publishing.settle_at.is_some());
        self.last = None;
        if self.alive.is_empty() {
            if let AfterCancel::Finish(outcome) = after {
                self.finish(outcome);
            }
            return;
        }
        self.tell_all(&ToTask::Cancel);
        self.phase = Phase::Cancelling(after);
    }

    /// The last task has stopped.
    pub(super) fn all_stopped(&mut self, now: Micros) {
        match self.phase.clone() {
            Phase::Ending => self.tidy(Outcome::Completed),
            Phase::Cancelling(AfterCancel::Finish(Outcome::Stopped)) => self.tidy(Outcome::Stopped),
            Phase::Cancelling(AfterCancel::Finish(outcome)) => self.finish(outcome),
            Phase::Cancelling(AfterCancel::Restart(error, blame)) => {
                self.restart_or_finish(now, error, blame)
            }
            _ => {}
        }
    }

    /// Asks the restart strategy.
    pub(super) fn restart_or_finish(&mut self, now: Micros, error: String, blame: TaskBlame) {
        match self.config.restart.decide(self.restarts) {
            RestartDecision::After(delay) => {
                self.restarts += 1;
                self.phase = Phase::Delayed { until: now + delay };
                tracing::warn!(%error, restarts = self.restarts, "restarting from the last checkpoint");
            }
            RestartDecision::GiveUp => self.finish(Outcome::Failed { error, blame }),
        }
    }

    /// The last checkpoint is committed: sources send the end, or, when they have more to read,
    /// everybody stops.
    pub(super) fn leave(&mut self) {
        if self.data_ended.len() < self.roles.len() {
            self.cancel(AfterCancel::Finish(Outcome::Stopped));
            return;
        }
        self.phase = Phase::Ending;
        for index in 0..self.roles.len() {
            if self.roles[index].source.is_some() {
                self.actions.push_back(Action::ToTask(self.task_id(index), ToTask::Finish));
            }
        }
    }

    fn tidy(&mut self, outcome: Outcome) {
        self.phase = Phase::Tidying(outcome);
        self.actions.push_back(Action::Tidy);
    }

    /// The job is over.
    pub(super) fn finish(&mut self, outcome: Outcome) {
        self.phase = Phase::Done;
        self.actions.push_back(Action::Finish(outcome));
    }
}
