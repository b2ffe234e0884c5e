//! What operators add to a checkpoint: parts that go into the manifest, and tasks that make
//! parts by writing and uploading beside processing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Cancellation, CheckpointId, CheckpointStorage};
use crate::Result;
use crate::graph::Uid;
use crate::sink::Committable;
use crate::source::SplitState;
use crate::state::KeyGroupRange;

/// A file that a checkpoint needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHandle {
    /// Its name in the local directory that it came from, such as `000012.sst`.
    pub name: String,
    /// Its full path in the store.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of its content, in lower-case hex.
    pub hash: String,
}

/// The keyed state of one instance of an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedHandle {
    /// Which kind of store wrote the files: `rocksdb` or `map`.
    pub backend: String,
    /// Which key groups they hold.
    pub key_groups: KeyGroupRange,
    /// The files.
    pub files: Vec<FileHandle>,
    /// The states in it: their ids, names, kinds and schemas, in the state module's encoding.
    #[serde(with = "super::base64_text")]
    pub meta: Vec<u8>,
}

/// One piece of an operator's state in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotPart {
    /// Keyed state.
    Keyed(KeyedHandle),
    /// Operator state: a named list, dealt out evenly over the subtasks at another parallelism.
    List {
        /// The state's name.
        name: String,
        /// Its items.
        #[serde(with = "super::base64_text::list")]
        items: Vec<Vec<u8>>,
    },
    /// Operator state: at a restore every subtask gets the items of all.
    Union {
        /// The state's name.
        name: String,
        /// Its items.
        #[serde(with = "super::base64_text::list")]
        items: Vec<Vec<u8>>,
    },
    /// The splits that a reader holds.
    Splits(Vec<SplitState>),
    /// What a sink has prepared.
    Committable(Committable),
}

/// Where a snapshot task works, and for whom.
pub struct SnapshotSite {
    /// The store.
    pub storage: Arc<dyn CheckpointStorage>,
    /// The job's directory in the store, without a trailing slash.
    pub job_path: String,
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// Whose state.
    pub uid: Uid,
    /// Which instance.
    pub subtask: u32,
    /// Shared files that the coordinator's last complete checkpoint of this job names, by content
    /// hash: an upload may be skipped for these and for no other.
    pub known: Arc<BTreeMap<String, FileHandle>>,
    /// A local directory for what has to be written first; exists, and is the task's own.
    pub scratch: PathBuf,
    /// Told when the checkpoint is aborted: what waits for the world gives up. Calls of `storage`
    /// heed it by themselves.
    pub cancelled: Cancellation,
}

/// Local work that comes before an upload: writing what a barrier froze, hard links. It waits for the
/// disk alone, never for the network, and answers with what is left to do. Runs once, on a helper
/// thread, beside processing; dropped unrun when its checkpoint is aborted first.
pub type SnapshotFlush = Box<dyn FnOnce(&SnapshotSite) -> Result<SnapshotTask> + Send>;

/// Work that makes parts of a checkpoint and may wait for the world: an upload, a sink's deliveries.
/// Runs once, on a helper thread, beside processing; dropped unrun when its checkpoint is aborted
/// first.
pub type SnapshotTask = Box<dyn FnOnce(&SnapshotSite) -> Result<Vec<SnapshotPart>> + Send>;
