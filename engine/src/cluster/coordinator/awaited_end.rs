//! What a job that was asked to stop, or whose tasks were cancelled, still waits for.

use super::{Coordinator, Phase};
use crate::cluster::TaskId;
use crate::cluster::decision::AwaitedEnd;

impl Coordinator {
    /// What the job waits for before it is over or goes on; `None`: nobody has asked it to end, or
    /// nothing is waited for.
    pub fn awaited_end(&self) -> Option<AwaitedEnd> {
        match &self.phase {
            Phase::Cancelling { deadline, .. } => Some(AwaitedEnd {
                what: "its tasks to return".into(),
                tasks: self.alive.iter().cloned().collect(),
                until: Some((*deadline, "they are given up and the job ends")),
                is_asked: self.stop_asked,
            }),
            _ if !self.stop_asked => None,
            Phase::Running => Some(self.awaited_checkpoint()),
            Phase::Restoring => Some(simply("the checkpoint that it starts from")),
            Phase::Ending => {
                Some(AwaitedEnd { tasks: self.alive.iter().cloned().collect(), ..simply("its tasks to end") })
            }
            Phase::Tidying(_) => Some(simply("its store to be left tidy")),
            Phase::Delayed { .. } | Phase::Done => None,
        }
    }

    /// What keeps a running job from its last checkpoint.
    fn awaited_checkpoint(&self) -> AwaitedEnd {
        if self.running.len() < self.roles.len() {
            let ids = (0..self.roles.len()).map(|index| self.task_id(index));
            let tasks: Vec<TaskId> = ids.filter(|id| !self.running.contains(id)).collect();
            return AwaitedEnd { tasks, ..simply("its tasks to open what they restore") };
        }
        if let Some(pending) = &self.pending {
            let until = pending.started + self.config.checkpoint_timeout;
            return AwaitedEnd {
                what: format!("checkpoint {}, not acknowledged by", pending.checkpoint),
                tasks: pending.waiting().cloned().collect(),
                until: Some((until, "it is given up and another begins")),
                is_asked: true,
            };
        }
        if let Some(publishing) = &self.publishing {
            return simply(format!("the store to take checkpoint {}", publishing.content.checkpoint));
        }
        if let Some(checkpoint) = self.last {
            return simply(format!("the commits up to checkpoint {checkpoint}"));
        }
        let in_row = self.failures_in_row;
        AwaitedEnd {
            until: Some((self.next_trigger_at, "it is tried")),
            ..simply(format!("its last checkpoint; {in_row} tries have failed"))
        }
    }
}

fn simply(what: impl Into<String>) -> AwaitedEnd {
    AwaitedEnd { what: what.into(), tasks: Vec::new(), until: None, is_asked: true }
}
