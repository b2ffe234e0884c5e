//! A barrier: where a checkpoint divides a channel, and what is known of the checkpoints before it.

use serde::{Deserialize, Serialize};

use super::CheckpointId;

/// Divides a channel: what came before it belongs to the checkpoint, what follows does not.
///
/// It says what it builds on, so that whoever passes it knows what became of everything before it,
/// and nothing leans on an order between messages and barriers: of the checkpoints up to this one,
/// [`Barrier::builds_on`] is published, and those after that never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// The last checkpoint that was published when this one was triggered.
    pub builds_on: Option<CheckpointId>,
}

impl std::fmt::Display for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.checkpoint.fmt(f)
    }
}
