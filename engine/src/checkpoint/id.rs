//! The name of a checkpoint.

use serde::{Deserialize, Serialize};

/// `number` rises within a job's life over all generations; `generation` says which run of the
/// coordinator made it. Displays as `<generation>-<number>`, as in the store's layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CheckpointId {
    /// Which run of the job's coordinator.
    pub generation: u64,
    /// Counts the job's checkpoints.
    pub number: u64,
}

impl std::fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.generation, self.number)
    }
}
