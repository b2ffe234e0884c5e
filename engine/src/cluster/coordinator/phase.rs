//! How an attempt begins and ends: failures, restarts, leaving.

use super::{Coordinator, StoreDecision};
use crate::ErrorKind;
use crate::cluster::decision::{Action, Outcome};
use crate::cluster::restart::{Failure, RestartDecision};
use crate::cluster::{Cause, TaskBlame, ToTask};
use crate::time::{Micros, SECOND};

/// Where a coordinator stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for `Restored`.
    Restoring,
    /// Tasks are deployed and run.
    Running,
    /// Tasks are told to stop.
    Cancelling {
        /// What follows when the last one has.
        after: AfterCancel,
        /// Who has not stopped then is stuck.
        deadline: Micros,
    },
    /// Waits to restart.
    Delayed {
        /// Until then.
        until: Micros,
        /// What it restarts after.
        cause: Cause,
    },
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
    Restart(Cause),
    /// The end.
    Finish(Outcome),
}

impl Coordinator {
    /// The attempt has failed.
    pub(super) fn fail(&mut self, now: Micros, cause: Cause) {
        tracing::error!(error = cause.error, retryable = cause.retryable, "task failed");
        // A store that refuses may be told to let us in while the job waits.
        let after = if cause.retryable || cause.kind == ErrorKind::Store {
            AfterCancel::Restart(cause)
        } else {
            AfterCancel::Finish(Outcome::Failed { error: cause.error, blame: cause.blame })
        };
        self.cancel(now, after);
    }

    /// Stops all tasks; `after` follows.
    pub(super) fn cancel(&mut self, now: Micros, after: AfterCancel) {
        match &self.phase {
            Phase::Done => return,
            // The job's end is decided, and only the store is left untidy.
            Phase::Tidying(outcome) => {
                let outcome = outcome.clone();
                return self.finish(outcome);
            }
            // The first failure is the cause; only leaving for good overrides a restart.
            Phase::Cancelling { after: AfterCancel::Finish(_), .. } => return,
            Phase::Cancelling { after: AfterCancel::Restart(_), .. }
                if matches!(after, AfterCancel::Restart(_)) =>
            {
                return;
            }
            _ => {}
        }
        self.pending = None;
        self.commit_at = None;
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
        let deadline = match self.phase {
            Phase::Cancelling { deadline, .. } => deadline,
            _ => now + self.config.cancel_timeout,
        };
        self.phase = Phase::Cancelling { after, deadline };
    }

    /// The last task has stopped.
    pub(super) fn all_stopped(&mut self, now: Micros) {
        match self.phase.clone() {
            Phase::Ending => self.tidy(Outcome::Completed),
            Phase::Cancelling { after: AfterCancel::Finish(Outcome::Stopped), .. } => {
                self.tidy(Outcome::Stopped);
            }
            Phase::Cancelling { after: AfterCancel::Finish(outcome), .. } => self.finish(outcome),
            Phase::Cancelling { after: AfterCancel::Restart(cause), .. } => {
                self.restart_or_finish(now, cause);
            }
            _ => {}
        }
    }

    /// There is nothing to start from that may be used, or the store did not say.
    pub(super) fn restore_failed(&mut self, now: Micros, cause: Cause) {
        if cause.retryable || cause.kind == ErrorKind::Store {
            self.restart_or_finish(now, cause);
        } else {
            self.finish(Outcome::Failed { error: cause.error, blame: TaskBlame::User });
        }
    }

    /// Waits for the store, or asks the restart strategy.
    fn restart_or_finish(&mut self, now: Micros, cause: Cause) {
        if self.stop_asked {
            return self.failed_while_stopping(cause);
        }
        let until = match cause.kind {
            ErrorKind::Store => match self.store.failed(now, !cause.retryable) {
                StoreDecision::RetryAt(at) => Some(at),
                StoreDecision::GiveUp => None,
            },
            ErrorKind::Other | ErrorKind::Damaged => self.restart_after(now).map(|delay| now + delay),
        };
        let Some(until) = until else {
            return self.finish(Outcome::Failed { error: cause.error, blame: cause.blame });
        };
        if cause.kind != ErrorKind::Store {
            self.restarts += 1;
            tracing::warn!(
                error = cause.error,
                restarts = self.restarts,
                "restarting from the last checkpoint"
            );
        } else if let Some(unsaid) = self.store.say(now) {
            tracing::warn!(error = cause.error, unsaid, "waiting for the checkpoint store");
        }
        self.actions.push_back(Action::Retire { attempt: self.attempt });
        self.phase = Phase::Delayed { until, cause };
    }

    fn restart_after(&mut self, now: Micros) -> Option<Micros> {
        let failure = Failure {
            at: now,
            ran_for: self.healthy_since.map_or(0, |since| now - since),
            spread: self.config.restart_spread.wrapping_add(self.generation << 32).wrapping_add(self.attempt),
        };
        match self.config.restart.decide(&mut self.history, failure) {
            RestartDecision::After(delay) => Some(delay),
            RestartDecision::GiveUp => None,
        }
    }

    /// No last checkpoint can be had: that is no clean stop.
    fn failed_while_stopping(&mut self, cause: Cause) {
        let goes_on = match self.last_published {
            Some(checkpoint) => format!("the next run goes on from checkpoint {checkpoint}"),
            None => "the next run begins anew".to_string(),
        };
        let error =
            format!("it was asked to stop and failed before a last checkpoint; {goes_on}: {}", cause.error);
        self.finish(Outcome::Failed { error, blame: cause.blame });
    }

    /// Does what time and a stop ask of a phase in which nothing runs, or is to run no more.
    pub(super) fn advance_phase(&mut self, now: Micros) {
        match self.phase.clone() {
            Phase::Delayed { cause, .. } if self.stop_asked => self.failed_while_stopping(cause),
            Phase::Delayed { until, .. } if until <= now && self.publishing.is_none() => {
                self.phase = Phase::Restoring;
                self.actions.push_back(Action::Restore);
            }
            Phase::Cancelling { after, deadline } if deadline <= now => {
                let why = match after {
                    AfterCancel::Restart(cause) => cause.error,
                    AfterCancel::Finish(Outcome::Failed { error, .. } | Outcome::Fenced { error }) => error,
                    AfterCancel::Finish(_) => "the job was to end".to_string(),
                };
                let tasks: Vec<_> = self.alive.iter().cloned().collect();
                let (stuck, seconds) = (tasks.len(), self.config.cancel_timeout / SECOND);
                let error =
                    format!("{stuck} tasks did not return within {seconds} s of being cancelled ({why})");
                self.finish(Outcome::Stuck { error, tasks });
            }
            _ => {}
        }
    }

    /// The last checkpoint is committed: sources send the end, or, when they have more to read,
    /// everybody stops.
    pub(super) fn leave(&mut self, now: Micros) {
        if self.data_ended.len() < self.roles.len() {
            self.cancel(now, AfterCancel::Finish(Outcome::Stopped));
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
