//! What a harness keeps of a checkpoint, and who gets which part at a restore.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::checkpoint::{CheckpointId, CheckpointStorage, SnapshotPart};
use crate::operator::OperatorSnapshot;
use crate::state::{KeyGroupRange, RestoredState};

/// A complete checkpoint of the operator under test.
#[derive(Clone)]
pub struct HarnessSnapshot {
    pub(super) checkpoint: CheckpointId,
    pub(super) storage: Arc<dyn CheckpointStorage>,
    /// The parts of each instance.
    pub(super) parts: Vec<Vec<SnapshotPart>>,
}

/// A checkpoint whose barrier is past and whose files are not yet written: what comes after the
/// barrier must not be in it.
#[must_use]
pub struct PendingSnapshot {
    pub(super) checkpoint: CheckpointId,
    pub(super) instances: Vec<OperatorSnapshot>,
}

impl HarnessSnapshot {
    /// Which checkpoint it is.
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// The parts of each instance, in the order of the subtasks.
    pub fn parts(&self) -> &[Vec<SnapshotPart>] {
        &self.parts
    }

    /// What `subtask` of `parallelism` is given: the keyed handles that overlap its key groups,
    /// every `parallelism`th item of a list, all items of a union.
    pub(super) fn restored(&self, subtask: u32, parallelism: u32, max_parallelism: u32) -> RestoredState {
        let own = KeyGroupRange::of_subtask(subtask, parallelism, max_parallelism);
        let mut parts = Vec::new();
        let mut lists: BTreeMap<&str, Vec<&Vec<u8>>> = BTreeMap::new();
        for part in self.parts.iter().flatten() {
            match part {
                SnapshotPart::Keyed(handle) if handle.key_groups.intersection(&own).is_none() => {}
                SnapshotPart::Keyed(_) | SnapshotPart::Union { .. } => parts.push(part.clone()),
                SnapshotPart::List { name, items } => lists.entry(name).or_default().extend(items),
                SnapshotPart::Splits(_) | SnapshotPart::Committable(_) => {}
            }
        }
        for (name, items) in lists {
            let share = items.into_iter().skip(subtask as usize).step_by(parallelism as usize);
            parts.push(SnapshotPart::List { name: name.to_string(), items: share.cloned().collect() });
        }
        RestoredState { parts }
    }
}
