//! A manifest as an object in the store: one line with format, length and hash, then JSON. A format
//! that was released once is read for ever (H5).
//!
//! ```text
//! thalweg-manifest <format> <length of the body> <BLAKE3 of the body, hexadecimal>\n
//! {"job":...}
//! ```
//!
//! Format 1 has no identities of states; format 2 has them.

use bytes::Bytes;

use super::Manifest;
use crate::checkpoint::{CheckpointId, CheckpointStorage, JobLayout};
use crate::{Error, Result};

/// The newest format that this code writes and reads.
pub const MANIFEST_FORMAT: u32 = 2;

const MAGIC: &str = "thalweg-manifest";

impl Manifest {
    /// The manifest as an object.
    ///
    /// # Errors
    /// An internal error; none that should come.
    pub fn encode(&self) -> Result<Bytes> {
        let body = serde_json::to_vec(self)
            .map_err(|error| Error::internal("cannot encode a manifest").caused_by(error))?;
        let hash = blake3::hash(&body).to_hex();
        let mut object = format!("{MAGIC} {MANIFEST_FORMAT} {} {hash}\n", body.len()).into_bytes();
        object.extend_from_slice(&body);
        Ok(object.into())
    }

    /// Reads a manifest; `path` is where it came from.
    ///
    /// # Errors
    /// A permanent external error that names the path when it is damaged or of a newer format.
    pub fn decode(path: &str, object: &[u8]) -> Result<Manifest> {
        let damaged = |how: String| Error::damaged(format!("checkpoint manifest {path} is damaged: {how}"));
        let end =
            object.iter().position(|&byte| byte == b'\n').ok_or_else(|| damaged("no first line".into()))?;
        let (head, body) = (&object[..end], &object[end + 1..]);
        let head = std::str::from_utf8(head).map_err(|_| damaged("first line is not text".into()))?;
        let mut words = head.split(' ');
        let (magic, format) = (words.next(), words.next().and_then(|word| word.parse::<u32>().ok()));
        let (Some(MAGIC), Some(format)) = (magic, format) else {
            return Err(damaged("first line is not a manifest's".into()));
        };
        if format > MANIFEST_FORMAT {
            let why = format!(
                "checkpoint manifest {path} has format {format}; this version reads up to {MANIFEST_FORMAT}"
            );
            return Err(Error::external(why).permanent());
        }
        if words.next().and_then(|word| word.parse().ok()) != Some(body.len()) {
            return Err(damaged(format!("{} bytes do not match {head:?}", body.len())));
        }
        if words.next() != Some(blake3::hash(body).to_hex().as_str()) {
            return Err(damaged("its hash does not match".into()));
        }
        serde_json::from_slice(body).map_err(|error| damaged("it cannot be read".into()).caused_by(error))
    }

    /// Writes the manifest to its place; the last thing before the checkpoint is published.
    ///
    /// # Errors
    /// An external error that names the path.
    pub fn write(&self, storage: &dyn CheckpointStorage, layout: &JobLayout) -> Result<()> {
        storage.put(&layout.manifest(self.checkpoint), self.encode()?)
    }

    /// Reads a checkpoint's manifest.
    ///
    /// # Errors
    /// A permanent external error that names the path when it is missing or damaged; a retryable
    /// one when the store cannot be reached.
    pub fn read(
        storage: &dyn CheckpointStorage,
        layout: &JobLayout,
        checkpoint: CheckpointId,
    ) -> Result<Manifest> {
        let path = layout.manifest(checkpoint);
        let object = storage
            .get(&path)?
            .ok_or_else(|| Error::damaged(format!("checkpoint manifest {path} is missing")))?;
        let manifest = Manifest::decode(&path, &object)?;
        if manifest.checkpoint != checkpoint {
            let why = format!("checkpoint manifest {path} is damaged: it is that of {}", manifest.checkpoint);
            return Err(Error::damaged(why));
        }
        Ok(manifest)
    }
}
