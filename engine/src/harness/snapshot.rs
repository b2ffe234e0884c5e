//! What a harness keeps of a checkpoint: a manifest, as a job's checkpoint has, and the store.

use std::sync::Arc;

use crate::checkpoint::{CheckpointId, CheckpointStorage, Manifest, SnapshotPart};
use crate::graph::Uid;
use crate::operator::OperatorSnapshot;

/// A complete checkpoint of the operator under test.
#[derive(Clone)]
pub struct HarnessSnapshot {
    pub(super) manifest: Manifest,
    pub(super) uid: Uid,
    pub(super) storage: Arc<dyn CheckpointStorage>,
}

/// A checkpoint whose barrier is past and whose files are not yet written: what comes after the
/// barrier must not be in it.
#[must_use]
pub struct PendingSnapshot {
    pub(super) checkpoint: CheckpointId,
    pub(super) instances: Vec<OperatorSnapshot>,
}

impl HarnessSnapshot {
    /// The manifest, with what the instances prepared to commit among it.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The parts of all instances, in the order of the subtasks.
    pub fn parts(&self) -> impl Iterator<Item = &SnapshotPart> {
        let operator = self.manifest.operators.get(&self.uid);
        operator.into_iter().flat_map(|operator| operator.subtasks.values()).flatten()
    }
}
