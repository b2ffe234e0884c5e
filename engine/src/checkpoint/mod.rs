//! Checkpoints: their ids, what operators add to one, the storage that holds them, the layout of
//! the store, the log that fences coordinators, manifests, upload and collection.
//!
//! I/O stays at the edge: storage reads facts, pure functions decide, storage carries it out.

mod id;
pub mod layout;
mod memory;
mod snapshot;
mod storage;
pub mod upload;

pub use id::CheckpointId;
pub use layout::JobLayout;
pub use memory::MemoryStorage;
pub use snapshot::{FileHandle, KeyedHandle, SnapshotPart, SnapshotSite, SnapshotTask};
pub use storage::{CheckpointStorage, ObjectInfo, PutOutcome};
pub use upload::{fetch, upload_private, upload_shared};
