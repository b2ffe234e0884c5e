//! What keyed state needs of the store below it: ordered bytes in two families.
//!
//! The rule between a store and its snapshotter: from the moment a snapshotter is made until it
//! has taken its snapshot, only the snapshotter writes. The task keeps its own writes in memory
//! meanwhile, so that a snapshot holds exactly what was known at the barrier.

use std::ops::Range;
use std::path::PathBuf;

use super::{KeyGroupRange, RestoredState};
use crate::Result;
use crate::checkpoint::{CheckpointStorage, KeyedHandle, SnapshotSite};
use crate::graph::Uid;

/// The two column families of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `key group (u16 BE) | state id | key | namespace | user key` to value.
    State,
    /// `key group (u16 BE) | time | key | namespace` to nothing.
    Timers,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvOp {
    /// Sets a key.
    Put(Family, Vec<u8>, Vec<u8>),
    /// Removes a key.
    Delete(Family, Vec<u8>),
}

/// Whose store it is and where it may live.
pub struct StoreSite<'a> {
    /// The operator.
    pub uid: &'a Uid,
    /// The instance.
    pub subtask: u32,
    /// What the instance owns.
    pub key_groups: KeyGroupRange,
    /// What it is restored from; every handle overlaps `key_groups`.
    pub restored: &'a RestoredState,
    /// Where the restored files are.
    pub storage: &'a dyn CheckpointStorage,
    /// A name for a local directory: the instance's.
    pub unique: String,
}

/// Makes stores. One per process, shared by all tasks; holds what they share (block cache, write
/// buffers, the local directory).
pub trait StateBackend: Send + Sync {
    /// The kind of store, as handles name it: `rocksdb` or `map`.
    fn kind(&self) -> &'static str;

    /// Opens an instance's store, with the restored key groups in it and no others.
    ///
    /// # Errors
    /// An external error that names the damaged or missing file, or the directory.
    fn open(&self, site: &StoreSite<'_>) -> Result<Box<dyn KvStore>>;

    /// A fresh local directory for a snapshot task.
    ///
    /// # Errors
    /// An external error that names the directory.
    fn scratch(&self, unique: &str) -> Result<PathBuf>;

    /// What an instance of a keyed operator may keep in memory in front of its store, in bytes, when
    /// the operator itself does not say; `None`: the operator's default.
    fn instance_bytes(&self) -> Option<usize> {
        None
    }

    /// Whether a task may stand and wait for a helper thread to write what a barrier froze. Not
    /// where both are steps of one thread, as in a simulation: there a bound is overrun instead.
    fn waits_for_flush(&self) -> bool {
        true
    }
}

/// Ordered bytes, owned by one task.
pub trait KvStore: Send {
    /// The value of a key.
    ///
    /// # Errors
    /// An external error of the store.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// The values of many keys, in their order.
    ///
    /// # Errors
    /// An external error of the store.
    fn multi_get(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>>;

    /// Calls `visit` with each key in `range` in ascending order until it answers `false`.
    ///
    /// # Errors
    /// An external error of the store, or `visit`'s.
    fn scan(
        &self,
        family: Family,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()>;

    /// Writes all operations, atomically.
    ///
    /// # Errors
    /// An external error of the store.
    fn write(&mut self, ops: &mut dyn Iterator<Item = KvOp>) -> Result<()>;

    /// A handle for a helper thread that writes what was frozen and takes the snapshot.
    fn snapshotter(&self) -> Box<dyn KvSnapshotter>;

    /// Roughly how many bytes the store holds on disk and in memory, for the metrics.
    fn bytes(&self) -> u64;
}

/// Writes what was frozen at a barrier and takes the snapshot; used on a helper thread.
pub trait KvSnapshotter: Send {
    /// Writes operations; called any number of times, with bounded shares.
    ///
    /// # Errors
    /// An external error of the store.
    fn write(&mut self, ops: &mut dyn Iterator<Item = KvOp>) -> Result<()>;

    /// As [`KvStore::scan`]; sees what was written so far.
    ///
    /// # Errors
    /// An external error of the store, or `visit`'s.
    fn scan(
        &self,
        family: Family,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()>;

    /// Freezes the store's files as they now are (hard links). After it the task may write again.
    ///
    /// # Errors
    /// An external error of the store.
    fn freeze(&mut self, site: &SnapshotSite) -> Result<()>;

    /// Uploads the frozen files that the store does not have yet.
    ///
    /// # Errors
    /// An external error that names the file.
    fn upload(
        self: Box<Self>,
        site: &SnapshotSite,
        key_groups: KeyGroupRange,
        meta: Vec<u8>,
    ) -> Result<KeyedHandle>;
}
