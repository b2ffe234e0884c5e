//! Two-phase sinks. A sink is an operator without outputs that adds [`Committable`]s to each
//! snapshot; when the checkpoint is published the coordinator has its [`Committer`] commit them.
//!
//! The rule: a committable needs nothing but itself, and committing it twice does what committing
//! it once does. One that is in a manifest and not known to be committed is committed again after
//! a restore. Semantics as Flink's FLIP-143.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::checkpoint::CheckpointStorage;
use crate::graph::Uid;

/// What a sink needs to finish a commit, even in another process. A few KiB at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Committable {
    /// Whose.
    pub uid: Uid,
    /// The sink's own encoding, with its version in front.
    #[serde(with = "crate::checkpoint::base64_text")]
    pub payload: Vec<u8>,
    /// The objects in the store that the payload refers to (segments), as full paths; kept until
    /// the commit is known to be done.
    pub objects: Vec<String>,
}

/// Commits what a sink has prepared. May block; runs beside processing.
pub trait Committer: Send + Sync {
    /// Commits. Idempotent. Keeps trying while the world is away, until `cancelled` says true.
    /// `storage` is where the objects are that the committables name.
    ///
    /// # Errors
    /// What no retry mends, or that it was cancelled.
    fn commit(
        &self,
        committables: &[Committable],
        storage: &dyn CheckpointStorage,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()>;
}
