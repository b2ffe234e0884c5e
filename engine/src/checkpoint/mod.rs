//! Checkpoints: their ids, what operators add to one, the storage that holds them, the layout of
//! the store, the log that fences coordinators, manifests, upload and collection.
//!
//! I/O stays at the edge: storage reads facts, pure functions decide, storage carries it out.

mod id;
mod snapshot;
mod storage;

pub use id::CheckpointId;
pub use snapshot::{FileHandle, KeyedHandle, SnapshotPart, SnapshotSite, SnapshotTask};
pub use storage::{CheckpointStorage, ObjectInfo, PutOutcome};
