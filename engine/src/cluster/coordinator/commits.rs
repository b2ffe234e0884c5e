//! What is published and not known to be committed.

use std::collections::BTreeMap;

use crate::checkpoint::CheckpointId;
use crate::sink::Committable;

/// Published checkpoints whose commits are to be made: one at a time, in their order.
#[derive(Default)]
pub(super) struct Commits {
    /// Those without committables too: only what is known to be committed is ever collected.
    waiting: BTreeMap<CheckpointId, Vec<Committable>>,
    under_way: Option<CheckpointId>,
}

impl Commits {
    /// What a restored checkpoint left to do.
    pub(super) fn restored(waiting: BTreeMap<CheckpointId, Vec<Committable>>) -> Commits {
        Commits { waiting, under_way: None }
    }

    /// A checkpoint is published.
    pub(super) fn add(&mut self, checkpoint: CheckpointId, committables: Vec<Committable>) {
        self.waiting.insert(checkpoint, committables);
    }

    /// The next to commit, if none is under way: the caller has it done.
    pub(super) fn next(&mut self) -> Option<(CheckpointId, Vec<Committable>)> {
        if self.under_way.is_some() {
            return None;
        }
        let (&checkpoint, committables) = self.waiting.first_key_value()?;
        self.under_way = Some(checkpoint);
        Some((checkpoint, committables.clone()))
    }

    /// A commit is done and logged.
    pub(super) fn done(&mut self, checkpoint: CheckpointId) {
        self.under_way.take_if(|under_way| *under_way == checkpoint);
        self.waiting.remove(&checkpoint);
    }

    /// A commit has failed; it is made again after a restart.
    pub(super) fn failed(&mut self, checkpoint: CheckpointId) {
        self.under_way.take_if(|under_way| *under_way == checkpoint);
    }

    /// Whether nothing up to `checkpoint` waits.
    pub(super) fn are_done_up_to(&self, checkpoint: CheckpointId) -> bool {
        self.waiting.keys().all(|&other| other > checkpoint)
    }

    /// What the next checkpoint's manifest takes over.
    pub(super) fn waiting(&self) -> &BTreeMap<CheckpointId, Vec<Committable>> {
        &self.waiting
    }
}
