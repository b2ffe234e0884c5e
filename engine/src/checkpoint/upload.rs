//! Files into the store and back, each with its length and BLAKE3 hash.
//!
//! The rule: an upload is skipped only for a file that the coordinator's last complete checkpoint
//! names ([`SnapshotSite::known`]); what a listing shows may be about to be deleted. Memory is
//! bounded: a file is streamed, once for its hash and once to the store.

use std::fs::File;
use std::path::Path;

use super::layout::JobLayout;
use super::{Cancellation, CheckpointStorage, FileHandle, SnapshotSite};
use crate::{Context, Error, Result};

/// Uploads a file that later checkpoints may share (an SST file), named by its content's hash.
/// Does nothing when [`SnapshotSite::known`] has the content already.
///
/// # Errors
/// An external error that names the file.
pub fn upload_shared(site: &SnapshotSite, name: &str, local: &Path) -> Result<FileHandle> {
    let (hash, bytes) = hash_file(local)?;
    if let Some(known) = site.known.get(&hash).filter(|known| known.bytes == bytes) {
        return Ok(FileHandle { name: name.to_owned(), ..known.clone() });
    }
    let path = JobLayout::new(&site.job_path)?.shared(site.checkpoint, &hash);
    put_whole(&*site.storage, FileHandle { name: name.to_owned(), path, bytes, hash }, local, &site.cancelled)
}

/// Uploads a file that belongs to this checkpoint alone, below its uid and subtask.
///
/// # Errors
/// An external error that names the file.
pub fn upload_private(site: &SnapshotSite, name: &str, local: &Path) -> Result<FileHandle> {
    let (hash, bytes) = hash_file(local)?;
    let path = JobLayout::new(&site.job_path)?.private(site.checkpoint, &site.uid, site.subtask, name)?;
    put_whole(&*site.storage, FileHandle { name: name.to_owned(), path, bytes, hash }, local, &site.cancelled)
}

/// Uploads a file to a path of its own, such as [`JobLayout::staged`]'s, unless it is cancelled.
///
/// # Errors
/// An external error that names the file.
pub fn upload_to(
    storage: &dyn CheckpointStorage,
    path: &str,
    local: &Path,
    cancelled: &Cancellation,
) -> Result<FileHandle> {
    let (hash, bytes) = hash_file(local)?;
    let name = path.rsplit('/').next().unwrap_or(path).to_owned();
    put_whole(storage, FileHandle { name, path: path.to_owned(), bytes, hash }, local, cancelled)
}

/// Reads a file of a checkpoint into a new local file and verifies its length and hash. What was
/// written of a file that does not verify is removed.
///
/// # Errors
/// A permanent external error that names the path in the store when the file is missing or
/// damaged; a retryable one when the store cannot be reached.
pub fn fetch(storage: &dyn CheckpointStorage, file: &FileHandle, local: &Path) -> Result<()> {
    let fetched = storage.get_file(&file.path, local)?;
    let Some(bytes) = fetched else {
        return Err(damaged(file, "is missing"));
    };
    let verified = verify(file, bytes, local);
    if verified.is_err() {
        // A second failure here would only hide the first.
        let _ = std::fs::remove_file(local);
    }
    verified
}

/// BLAKE3 of a local file in lower-case hex, and its length in bytes; streamed.
///
/// # Errors
/// An external error that names the file.
pub fn hash_file(local: &Path) -> Result<(String, u64)> {
    let failed = |error| Error::external(format!("cannot read {}", local.display())).caused_by(error);
    let file = File::open(local).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file).map_err(failed)?;
    Ok((hasher.finalize().to_hex().to_string(), hasher.count()))
}

fn put_whole(
    storage: &dyn CheckpointStorage,
    file: FileHandle,
    local: &Path,
    cancelled: &Cancellation,
) -> Result<FileHandle> {
    let put = storage.put_file(&file.path, local, cancelled);
    let written = put.context(|| format!("uploading {}", local.display()))?;
    if written != file.bytes {
        let why = format!(
            "{} changed from {} to {written} bytes while it was uploaded",
            local.display(),
            file.bytes
        );
        return Err(Error::internal(why));
    }
    Ok(file)
}

fn verify(file: &FileHandle, bytes: u64, local: &Path) -> Result<()> {
    if bytes != file.bytes {
        return Err(damaged(file, &format!("is damaged: {bytes} bytes instead of {}", file.bytes)));
    }
    let (hash, _) = hash_file(local)?;
    if hash != file.hash {
        return Err(damaged(file, &format!("is damaged: BLAKE3 {hash} instead of {}", file.hash)));
    }
    Ok(())
}

fn damaged(file: &FileHandle, how: &str) -> Error {
    Error::damaged(format!("checkpoint file {} {how}", file.path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::{CheckpointId, MemoryStorage};
    use super::*;
    use crate::ErrorKind;
    use crate::graph::Uid;

    fn site(storage: &Arc<MemoryStorage>, known: BTreeMap<String, FileHandle>) -> SnapshotSite {
        SnapshotSite {
            storage: storage.clone(),
            job_path: "job".into(),
            checkpoint: CheckpointId { generation: 1, number: 2 },
            uid: Uid::new("u").unwrap(),
            subtask: 0,
            known: Arc::new(known),
            scratch: std::env::temp_dir(),
            cancelled: Cancellation::default(),
        }
    }

    #[test]
    fn a_file_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        let content: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&from, &content).unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let file = upload_private(&site(&storage, BTreeMap::new()), "x.sst", &from).unwrap();
        assert_eq!(file.path, "job/checkpoints/1-2/operators/u/0/x.sst");
        assert_eq!(file.bytes, content.len() as u64);
        assert_eq!(file.hash, blake3::hash(&content).to_hex().as_str());
        fetch(&*storage, &file, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), content);
    }

    #[test]
    fn an_upload_is_skipped_only_for_a_known_file() {
        let directory = tempfile::tempdir().unwrap();
        let local = directory.path().join("000007.sst");
        std::fs::write(&local, b"rows").unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let first = upload_shared(&site(&storage, BTreeMap::new()), "000007.sst", &local).unwrap();
        assert!(storage.get(&first.path).unwrap().is_some());

        // The store has it, but no complete checkpoint names it: it travels again.
        storage.delete(&first.path).unwrap();
        upload_shared(&site(&storage, BTreeMap::new()), "000007.sst", &local).unwrap();
        assert!(storage.get(&first.path).unwrap().is_some());

        storage.delete(&first.path).unwrap();
        let known = BTreeMap::from([(first.hash.clone(), first.clone())]);
        let again = upload_shared(&site(&storage, known), "000009.sst", &local).unwrap();
        assert_eq!(again, FileHandle { name: "000009.sst".into(), ..first.clone() });
        assert!(storage.get(&first.path).unwrap().is_none(), "a known file was uploaded again");
    }

    #[test]
    fn a_damaged_or_missing_file_is_named_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        std::fs::write(&from, b"rows").unwrap();
        let storage = Arc::new(MemoryStorage::new());
        let file = upload_shared(&site(&storage, BTreeMap::new()), "a.sst", &from).unwrap();
        for (content, said) in [("rowz", "BLAKE3"), ("row", "3 bytes instead of 4")] {
            storage.put(&file.path, Bytes::from(content)).unwrap();
            let error = fetch(&*storage, &file, &to).unwrap_err();
            assert!(error.to_string().contains(&file.path) && error.to_string().contains(said), "{error}");
            assert_eq!(error.kind(), ErrorKind::Damaged);
            assert!(!to.exists());
        }
        storage.delete(&file.path).unwrap();
        let error = fetch(&*storage, &file, &to).unwrap_err();
        assert!(error.to_string().contains(&format!("{} is missing", file.path)), "{error}");
    }
}
