//! The snapshots of a task of which it does not know yet what became.
//!
//! The rule: an operator hears of every snapshot that it made once what became of it, and before it
//! makes the next. A message may say so first; the next barrier says so at the latest. By
//! induction only what lies between a barrier and what it builds on is unsettled when it comes: for
//! what that one was built on, this task has heard at its barrier.

use std::collections::BTreeSet;

use crate::checkpoint::{Barrier, CheckpointId};

/// What became of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was published.
    Completed,
    /// It never will be.
    Aborted,
}

/// Snapshots that were made and are neither published nor aborted, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Unsettled(BTreeSet<CheckpointId>);

impl Unsettled {
    /// A snapshot is made.
    pub(super) fn add(&mut self, checkpoint: CheckpointId) {
        self.0.insert(checkpoint);
    }

    /// A message says what became of one. Returns whether that is news.
    pub(super) fn settle(&mut self, checkpoint: CheckpointId) -> bool {
        self.0.remove(&checkpoint)
    }

    /// A barrier came: what became of those before it, oldest first.
    pub(super) fn at_barrier(&mut self, barrier: Barrier) -> Vec<(CheckpointId, Fate)> {
        let fate = |checkpoint| {
            let is_published = Some(checkpoint) == barrier.builds_on;
            (checkpoint, if is_published { Fate::Completed } else { Fate::Aborted })
        };
        let later = self.0.split_off(&barrier.checkpoint);
        std::mem::replace(&mut self.0, later).into_iter().map(fate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(number: u64) -> CheckpointId {
        CheckpointId { generation: 1, number }
    }

    #[test]
    fn a_barrier_says_what_became_of_those_before_it_and_no_message_says_it_again() {
        let mut unsettled = Unsettled::default();
        (1..=3).for_each(|number| unsettled.add(checkpoint(number)));
        assert!(unsettled.settle(checkpoint(1)));
        assert!(!unsettled.settle(checkpoint(1)));
        let barrier = Barrier { checkpoint: checkpoint(4), builds_on: Some(checkpoint(2)) };
        let fates = [(checkpoint(2), Fate::Completed), (checkpoint(3), Fate::Aborted)];
        assert_eq!(unsettled.at_barrier(barrier), fates);
        assert!(!unsettled.settle(checkpoint(2)));
        assert!(unsettled.at_barrier(barrier).is_empty());
    }
}
