//! Checkpoints: their ids, what operators add to one, the storage that holds them, the layout of
//! the store, the log that fences coordinators, manifests, upload and collection.
//!
//! I/O stays at the edge: storage reads facts, pure functions decide, storage carries it out.

#[cfg(feature = "azure")]
pub mod azure;
mod barrier;
pub(crate) mod base64_text;
mod blocking;
mod cancellation;
mod carry_over;
pub mod collect;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod fault;
mod id;
pub mod layout;
pub mod log;
mod manifest;
mod memory;
mod object_store;
mod open;
mod recording;
mod restore;
mod snapshot;
mod storage;
#[cfg(test)]
mod storage_tests;
pub mod upload;

#[cfg(feature = "azure")]
pub use azure::AzureBlobStorage;
pub use barrier::Barrier;
pub use cancellation::{CancelOnDrop, Cancellation};
pub use carry_over::{
    AllowedChanges, CarriedState, CarryOver, Fate, HeldJob, HeldState, JobState, carry_over,
};
pub use collect::{Collector, ORPHAN_GRACE, Sweep};
pub use fault::FaultyStorage;
pub use id::CheckpointId;
pub use layout::JobLayout;
pub use log::{JobLog, LogView};
pub use manifest::{MANIFEST_FORMAT, Manifest, OperatorState};
pub use memory::MemoryStorage;
pub use object_store::ObjectStoreStorage;
pub use open::{StoreOptions, open};
pub use recording::RecordingStorage;
pub use restore::{Candidate, RestorePolicy, Selected, candidates, select};
pub use snapshot::{FileHandle, KeyedHandle, SnapshotFlush, SnapshotPart, SnapshotSite, SnapshotTask};
pub use storage::{CheckpointStorage, ObjectInfo, PutOutcome};
pub use upload::{fetch, upload_private, upload_shared, upload_to};
