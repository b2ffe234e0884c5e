//! What a checkpoint store must be able to do. Nothing more is asked of one, so that a local
//! directory will do. Calls block and are bounded in time by the implementation; they come from
//! helper threads, never from a task's.

use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use super::Cancellation;
use crate::Result;

/// What a put-if-absent did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum PutOutcome {
    /// The object was not there and now is.
    Created,
    /// An object was there already, and was left alone.
    Exists,
}

/// An object that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its path, relative to the store's root, with `/` between parts.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// An object store: a flat map from paths to immutable objects.
///
/// Paths are relative, `/`-separated, without `.` or `..` parts.
pub trait CheckpointStorage: Send + Sync {
    /// Writes an object whole; replaces one that is there.
    ///
    /// # Errors
    /// An external error that names the path.
    fn put(&self, path: &str, data: Bytes) -> Result<()>;

    /// Writes an object if none is there; atomic among all writers.
    ///
    /// `Exists` may mean the object of this very call: a first try whose answer was lost took
    /// effect, and a second one found it. Whoever has to know compares the contents. Either answer
    /// says that the object survives the loss of power; an object that is merely read may not.
    ///
    /// # Errors
    /// An external error. The object may exist all the same, or may come to exist later: read it
    /// back.
    fn put_if_absent(&self, path: &str, data: Bytes) -> Result<PutOutcome>;

    /// Writes a local file as an object, streamed in bounded memory. Returns its length. A file may
    /// take as long as it makes progress: what has a bound is the time without any. Ends soon when it
    /// is `cancelled`; the object may exist all the same.
    ///
    /// # Errors
    /// An external error that names the path.
    fn put_file(&self, path: &str, local: &Path, cancelled: &Cancellation) -> Result<u64>;

    /// Reads an object whole; `None` when there is none.
    ///
    /// # Errors
    /// An external error that names the path.
    fn get(&self, path: &str) -> Result<Option<Bytes>>;

    /// Reads bytes `range` of an object; `None` when there is none. Past the end: what there is.
    ///
    /// # Errors
    /// An external error that names the path.
    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>>;

    /// Reads an object into a new local file, streamed in bounded memory. Returns its length;
    /// `None` when there is no object.
    ///
    /// # Errors
    /// An external error that names the path.
    fn get_file(&self, path: &str, local: &Path) -> Result<Option<u64>>;

    /// What an object's content is told apart by: the same while the object stays, another when it
    /// was replaced by another content. `None` when there is none. Cheap where the store keeps such
    /// a mark (an ETag); else a hash of the content.
    ///
    /// # Errors
    /// An external error that names the path.
    fn version(&self, path: &str) -> Result<Option<String>> {
        Ok(self.get(path)?.map(|content| blake3::hash(&content).to_hex().to_string()))
    }

    /// All objects whose path begins with `prefix` (a directory, ending in `/`), sorted by path.
    ///
    /// # Errors
    /// An external error that names the prefix.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>>;

    /// Deletes an object; none there is no error.
    ///
    /// # Errors
    /// An external error that names the path.
    fn delete(&self, path: &str) -> Result<()>;
}
