//! What a two-phase sink has sealed and does not yet know to be committed. Pure.
//!
//! The rule: everything that was sealed rides in the committable of every later checkpoint until
//! one of them is known to be complete. So the rows of an aborted checkpoint ride with the next,
//! and nothing depends on an abort being told; that an item is committed twice is harmless.

use std::collections::VecDeque;

use thalweg_engine::checkpoint::CheckpointId;

/// Sealed items in the order of their checkpoints.
#[derive(Debug)]
pub(crate) struct Unconfirmed<T>(VecDeque<(CheckpointId, T)>);

impl<T> Default for Unconfirmed<T> {
    fn default() -> Self {
        Unconfirmed(VecDeque::new())
    }
}

impl<T: Clone> Unconfirmed<T> {
    /// Adds what was sealed for `checkpoint`.
    pub(crate) fn seal(&mut self, checkpoint: CheckpointId, item: T) {
        self.0.push_back((checkpoint, item));
    }

    /// Everything that the next committable has to hold.
    pub(crate) fn items(&self) -> Vec<T> {
        self.0.iter().map(|(_, item)| item.clone()).collect()
    }

    /// `checkpoint` is published: its committable, with all that was sealed up to it, will be
    /// committed by the coordinator, whatever becomes of this task.
    pub(crate) fn completed(&mut self, checkpoint: CheckpointId) {
        self.0.retain(|(sealed, _)| *sealed > checkpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aborted_checkpoint_rides_with_the_next_and_a_late_completion_drops_no_more_than_its_own() {
        let id = |number| CheckpointId { generation: 1, number };
        let mut unconfirmed = Unconfirmed::default();
        unconfirmed.seal(id(1), 'a');
        unconfirmed.seal(id(2), 'b');
        assert_eq!(unconfirmed.items(), ['a', 'b']);
        unconfirmed.seal(id(3), 'c');
        unconfirmed.completed(id(2));
        assert_eq!(unconfirmed.items(), ['c']);
    }
}
