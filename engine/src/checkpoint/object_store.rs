//! Checkpoint storage over the `object_store` crate: a local directory, its in-memory store, and
//! any other store of that crate (S3, GCS) that a program brings.
//!
//! The rule for a directory: what a call reported as written survives the loss of power. The crate
//! does not sync, so it is done here: file, then directories; and a put-if-absent syncs a staging
//! file before it links it under its name, so that nobody ever reads a torn entry.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::object_store::local::LocalFileSystem;
use ::object_store::path::Path as ObjectPath;
use ::object_store::{
    CopyMode, CopyOptions, Error as StoreError, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode,
    PutPayload, WriteMultipart,
};
use bytes::Bytes;
use futures::TryStreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::blocking::block_on;
use super::layout::{check_path, check_prefix};
use super::log::fresh_nonce;
use super::{Cancellation, CheckpointStorage, ObjectInfo, PutOutcome};
use crate::{Error, Result};

/// A file is put in parts of this many bytes, unless a directory was told less; one that is not
/// larger goes in one request. Several files travel at once, so all parts in flight are memory; S3
/// will want parts of at least 5 MiB.
pub(super) const PART_BYTES: usize = 1 << 20;
/// Parts of one file in flight.
const PARTS_IN_FLIGHT: usize = 4;
/// Where a directory's put-if-absent stages; listings leave it out.
const STAGING_DIRECTORY: &str = ".staging";
/// What a crash left there is removed when the directory is next opened, once it is so old that no
/// call of a living process can still want it.
const STAGING_AGE_MAX: Duration = Duration::from_secs(3_600);
/// Names local files, which are not the store's.
const LOCAL_FILE: &str = "local file";

/// Checkpoint storage over a store of the `object_store` crate.
pub struct ObjectStoreStorage {
    store: Arc<dyn ObjectStore>,
    /// The directory, when the store is one.
    directory: Option<PathBuf>,
    timeout: Duration,
    part_bytes: usize,
}

impl ObjectStoreStorage {
    /// Storage over any store. Every call ends within `timeout` (for files: per part).
    pub fn new(store: Arc<dyn ObjectStore>, timeout: Duration) -> ObjectStoreStorage {
        ObjectStoreStorage { store, directory: None, timeout, part_bytes: PART_BYTES }
    }

    /// Storage in a local directory, which is made when it is not there; that is logged, for a
    /// mistyped one begins a job anew.
    ///
    /// # Errors
    /// An external error that names the directory.
    pub fn directory(directory: &Path, timeout: Duration) -> Result<ObjectStoreStorage> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::external(format!("cannot use directory {} for checkpoints", directory.display()))
                .caused_by(error)
        };
        if !directory.exists() {
            std::fs::create_dir_all(directory).map_err(|error| failed(error.into()))?;
            tracing::info!(directory = %directory.display(), "made a directory for checkpoints: none was there");
        }
        let directory = std::fs::canonicalize(directory).map_err(|error| failed(error.into()))?;
        let store = LocalFileSystem::new_with_prefix(&directory).map_err(|error| failed(error.into()))?;
        sweep_staging(&directory.join(STAGING_DIRECTORY), SystemTime::now());
        let (store, directory) = (Arc::new(store), Some(directory));
        Ok(ObjectStoreStorage { store, directory, timeout, part_bytes: PART_BYTES })
    }

    /// Files travel in parts of this many bytes; four in flight and one more are in memory.
    /// Remote stores have their own least size of a part (S3: 5 MiB).
    #[must_use]
    pub fn part_bytes(mut self, bytes: usize) -> ObjectStoreStorage {
        self.part_bytes = bytes.max(1);
        self
    }

    fn call<T, F>(&self, what: &'static str, path: &str, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let (path, timeout) = (path.to_owned(), self.timeout);
        block_on(async move {
            match tokio::time::timeout(timeout, work).await {
                Ok(answer) => answer.map_err(|error| failed(what, &path, error)),
                Err(_) => {
                    Err(Error::store(format!("{what} {path}: no answer in {} ms", timeout.as_millis())))
                }
            }
        })
    }

    fn sync(&self, path: &str) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let file = directory.join(path);
        let synced = sync_file(&file).and_then(|()| sync_directories(directory, &file));
        synced.map_err(|error| Error::store(format!("cannot sync {path}")).caused_by(error))
    }

    /// A directory's put-if-absent: written and synced aside, then linked under its name.
    fn link_if_absent(&self, path: &str, data: Bytes) -> Result<PutOutcome> {
        // Unlike that of any other process, on this machine or on one that mounts the directory.
        let staging = format!("{STAGING_DIRECTORY}/{}", fresh_nonce());
        self.put(&staging, data)?;
        let (store, from, to) = (self.store.clone(), object_path(&staging)?, object_path(path)?);
        let linked = self.call("putting", path, async move {
            match store.copy_opts(&from, &to, CopyOptions::new().with_mode(CopyMode::Create)).await {
                Ok(()) => Ok(PutOutcome::Created),
                Err(StoreError::AlreadyExists { .. }) => Ok(PutOutcome::Exists),
                Err(error) => Err(error),
            }
        });
        // One that stays is read by nobody, and swept when the directory is opened.
        let _ = self.delete(&staging);
        if linked.is_ok() {
            // One that is there already may be of an earlier try, which did not come to this.
            self.sync(path)?;
        }
        linked
    }

    /// There is no such object. In a directory that is gone (not mounted any more) that means nothing.
    fn missing<T>(&self, path: &str) -> Result<Option<T>> {
        match &self.directory {
            Some(directory) if !directory.is_dir() => {
                let directory = directory.display();
                Err(Error::store(format!("reading {path}: the directory {directory} is gone")))
            }
            _ => Ok(None),
        }
    }
}

impl CheckpointStorage for ObjectStoreStorage {
    fn put(&self, path: &str, data: Bytes) -> Result<()> {
        let (store, to) = (self.store.clone(), object_path(path)?);
        self.call("putting", path, async move { store.put(&to, PutPayload::from(data)).await.map(drop) })?;
        self.sync(path)
    }

    fn put_if_absent(&self, path: &str, data: Bytes) -> Result<PutOutcome> {
        let (store, to) = (self.store.clone(), object_path(path)?);
        if self.directory.is_some() {
            return self.link_if_absent(path, data);
        }
        self.call("putting", path, async move {
            match store.put_opts(&to, PutPayload::from(data), PutMode::Create.into()).await {
                Ok(_) => Ok(PutOutcome::Created),
                Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                    Ok(PutOutcome::Exists)
                }
                Err(error) => Err(error),
            }
        })
    }

    fn put_file(&self, path: &str, local: &Path, cancelled: &Cancellation) -> Result<u64> {
        let (store, to, timeout) = (self.store.clone(), object_path(path)?, self.timeout);
        let (name, local) = (path.to_owned(), local.to_owned());
        let (part_bytes, cancelled) = (self.part_bytes, cancelled.clone());
        let bytes = block_on(async move {
            let upload = upload_parts(store, to, &local, timeout, part_bytes);
            cancelled.bound(async { upload.await.map_err(|error| failed("putting", &name, error)) }).await
        })?;
        self.sync(path)?;
        Ok(bytes)
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>> {
        let (store, from) = (self.store.clone(), object_path(path)?);
        let found = self.call("reading", path, async move {
            match store.get(&from).await {
                Ok(found) => found.bytes().await.map(Some),
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })?;
        found.map_or_else(|| self.missing(path), |data| Ok(Some(data)))
    }

    fn get_range(&self, path: &str, range: Range<u64>) -> Result<Option<Bytes>> {
        let (store, from) = (self.store.clone(), object_path(path)?);
        self.call("reading", path, async move {
            let length = match store.head(&from).await {
                Ok(head) => head.size,
                Err(StoreError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let end = range.end.min(length);
            if range.start >= end {
                return Ok(Some(Bytes::new()));
            }
            let wanted = GetOptions::new().with_range(Some(GetRange::Bounded(range.start..end)));
            store.get_opts(&from, wanted).await?.bytes().await.map(Some)
        })
    }

    fn get_file(&self, path: &str, local: &Path) -> Result<Option<u64>> {
        let (store, from, timeout) = (self.store.clone(), object_path(path)?, self.timeout);
        let (name, local) = (path.to_owned(), local.to_owned());
        let bytes = block_on(async move {
            download(store, from, &local, timeout).await.map_err(|error| failed("reading", &name, error))
        })?;
        bytes.map_or_else(|| self.missing(path), |bytes| Ok(Some(bytes)))
    }

    fn version(&self, path: &str) -> Result<Option<String>> {
        let (store, object) = (self.store.clone(), object_path(path)?);
        self.call("looking at", path, async move {
            match store.head(&object).await {
                // Where there is no ETag, what changes with all but the quickest replacement.
                Ok(head) => {
                    Ok(Some(head.e_tag.unwrap_or_else(|| format!("{} {}", head.last_modified, head.size))))
                }
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        check_prefix(prefix)?;
        let store = self.store.clone();
        let below = object_prefix(prefix)?;
        let found =
            self.call(
                "listing",
                prefix,
                async move { store.list(below.as_ref()).try_collect::<Vec<_>>().await },
            )?;
        let objects =
            found.into_iter().map(|meta| ObjectInfo { path: meta.location.into(), bytes: meta.size });
        let staged = |path: &str| path.split_once('/').is_some_and(|(first, _)| first == STAGING_DIRECTORY);
        let mut objects: Vec<_> = objects.filter(|object| !staged(&object.path)).collect();
        objects.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(objects)
    }

    fn delete(&self, path: &str) -> Result<()> {
        let (store, object) = (self.store.clone(), object_path(path)?);
        self.call("deleting", path, async move {
            match store.delete(&object).await {
                Err(StoreError::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
    }
}

async fn upload_parts(
    store: Arc<dyn ObjectStore>,
    to: ObjectPath,
    local: &Path,
    timeout: Duration,
    part_bytes: usize,
) -> Result<u64, StoreError> {
    let mut file = tokio::fs::File::open(local).await.map_err(|error| local_failed(local, error))?;
    let mut part = read_part(&mut file, local, part_bytes).await?;
    let mut bytes = part.len() as u64;
    if part.len() < part_bytes {
        bounded(timeout, store.put(&to, PutPayload::from(part))).await?;
        return Ok(bytes);
    }
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(&to).await?, part_bytes);
    while !part.is_empty() {
        upload.put(part);
        if let Err(error) = bounded(timeout, upload.wait_for_capacity(PARTS_IN_FLIGHT)).await {
            let _ = upload.abort().await;
            return Err(error);
        }
        part = read_part(&mut file, local, part_bytes).await?;
        bytes += part.len() as u64;
    }
    bounded(timeout * PARTS_IN_FLIGHT as u32, upload.finish()).await?;
    Ok(bytes)
}

async fn read_part(file: &mut tokio::fs::File, local: &Path, part_bytes: usize) -> Result<Bytes, StoreError> {
    let mut part = Vec::with_capacity(part_bytes);
    file.take(part_bytes as u64).read_to_end(&mut part).await.map_err(|error| local_failed(local, error))?;
    Ok(part.into())
}

async fn download(
    store: Arc<dyn ObjectStore>,
    from: ObjectPath,
    local: &Path,
    timeout: Duration,
) -> Result<Option<u64>, StoreError> {
    let found = match bounded(timeout, store.get(&from)).await {
        Ok(found) => found,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut file = tokio::fs::File::create(local).await.map_err(|error| local_failed(local, error))?;
    let mut chunks = found.into_stream();
    let mut bytes = 0;
    while let Some(chunk) = bounded(timeout, chunks.try_next()).await? {
        bytes += chunk.len() as u64;
        file.write_all(&chunk).await.map_err(|error| local_failed(local, error))?;
    }
    file.flush().await.map_err(|error| local_failed(local, error))?;
    Ok(Some(bytes))
}

async fn bounded<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let late = || StoreError::Generic {
        store: "object store",
        source: format!("no answer in {} ms", timeout.as_millis()).into(),
    };
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(late()))
}

fn object_path(path: &str) -> Result<ObjectPath> {
    check_path(path)?;
    ObjectPath::parse(path)
        .map_err(|error| Error::internal(format!("{path:?} is not a path")).caused_by(error))
}

fn object_prefix(prefix: &str) -> Result<Option<ObjectPath>> {
    prefix.strip_suffix('/').map(object_path).transpose()
}

fn failed(what: &str, path: &str, error: StoreError) -> Error {
    let said = format!("{what} {path}");
    match error {
        StoreError::Generic { store: LOCAL_FILE, .. } => Error::external(said).caused_by(error),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            Error::store(said).caused_by(error).permanent()
        }
        _ => Error::store(said).caused_by(error),
    }
}

/// Removes what crashed processes left; what cannot be removed costs nothing but space.
fn sweep_staging(staging: &Path, now: SystemTime) {
    for entry in std::fs::read_dir(staging).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| now.duration_since(modified).ok());
        if age.is_some_and(|age| age > STAGING_AGE_MAX) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn local_failed(local: &Path, error: std::io::Error) -> StoreError {
    StoreError::Generic { store: LOCAL_FILE, source: format!("{}: {error}", local.display()).into() }
}

fn sync_file(file: &Path) -> std::io::Result<()> {
    File::open(file)?.sync_all()
}

/// Syncs the directories from `file`'s up to `root`: any of them may be new.
fn sync_directories(root: &Path, file: &Path) -> std::io::Result<()> {
    for directory in file.ancestors().skip(1).take_while(|directory| directory.starts_with(root)) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_crash_left_in_staging_is_swept_and_what_may_be_under_way_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let staging = directory.path().join(STAGING_DIRECTORY);
        std::fs::create_dir_all(&staging).unwrap();
        let (old, fresh) = (staging.join("old"), staging.join("fresh"));
        std::fs::write(&old, "x").unwrap();
        std::fs::write(&fresh, "x").unwrap();
        let before = SystemTime::now() - 2 * STAGING_AGE_MAX;
        File::options().write(true).open(&old).unwrap().set_modified(before).unwrap();
        ObjectStoreStorage::directory(directory.path(), TIMEOUT).unwrap();
        assert_eq!((old.exists(), fresh.exists()), (false, true));
    }

    #[test]
    fn a_directory_that_is_gone_says_nothing_of_what_is_stored() {
        let directory = tempfile::tempdir().unwrap();
        let storage = ObjectStoreStorage::directory(&directory.path().join("mounted"), TIMEOUT).unwrap();
        storage.put("a", "1".into()).unwrap();
        assert!(storage.get("b").unwrap().is_none());
        std::fs::remove_dir_all(directory.path().join("mounted")).unwrap();
        for error in
            [storage.get("a").unwrap_err(), storage.get_file("a", &directory.path().join("to")).unwrap_err()]
        {
            assert_eq!(error.kind(), crate::ErrorKind::Store, "{error}");
        }
    }

    #[test]
    fn a_store_that_refuses_is_told_from_one_that_is_away_and_from_local_files() {
        let denied = StoreError::PermissionDenied { path: "a".into(), source: "403".into() };
        let away = StoreError::Generic { store: "S3", source: "connection refused".into() };
        let local = local_failed(Path::new("/x"), std::io::Error::other("disk full"));
        let kinds = [denied, away, local].map(|error| {
            let error = failed("reading", "a", error);
            (error.kind(), error.is_retryable())
        });
        use crate::ErrorKind::{Other, Store};
        assert_eq!(kinds, [(Store, false), (Store, true), (Other, true)]);
    }
}
