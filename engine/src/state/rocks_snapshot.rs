//! A snapshot of one RocksDB instance: flush, hard links, incremental upload (H4).
//!
//! SST files never change and a name is never used twice in an instance's life, so a file that
//! this instance has uploaded before is not even read again: its hash is known.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rocksdb::checkpoint::Checkpoint;

use super::key_group::KeyGroupRange;
use super::owned_directory::OwnedDirectory;
use super::parallel::in_parallel;
use super::rocks_backend::KIND;
use super::rocks_options::Shared;
use super::rocks_store::Instance;
use super::store::{Family, KvOp, KvSnapshotter};
use crate::checkpoint::{FileHandle, KeyedHandle, SnapshotSite, upload_private, upload_shared};
use crate::{Error, Result};

/// What an instance has uploaded, or was restored from: SST files by their local names.
pub(super) type Uploaded = BTreeMap<String, FileHandle>;

/// The helper's end of an instance.
pub(super) struct RocksSnapshotter {
    pub(super) shared: Arc<Shared>,
    pub(super) instance: Arc<Instance>,
    pub(super) uploaded: Arc<Mutex<Uploaded>>,
    pub(super) frozen: Option<OwnedDirectory>,
}

/// Whether a file of this name never changes and may be shared by checkpoints.
pub(super) fn is_shared(name: &str) -> bool {
    name.ends_with(".sst")
}

impl KvSnapshotter for RocksSnapshotter {
    fn write(&mut self, ops: &mut dyn Iterator<Item = KvOp>) -> Result<()> {
        self.instance.write(ops)
    }

    fn scan(
        &self,
        family: Family,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        self.instance.scan(family, range, visit)
    }

    fn freeze(&mut self, site: &SnapshotSite) -> Result<()> {
        let path = site.scratch.join("rocksdb");
        // RocksDB makes the directory itself, and flushes both families first: with the
        // write-ahead log off, what is not in a file would not be in the checkpoint.
        let made = Checkpoint::new(self.instance.db()).and_then(|links| links.create_checkpoint(&path));
        made.map_err(|error| self.instance.failed("take a checkpoint", error))?;
        self.frozen = Some(OwnedDirectory(path));
        Ok(())
    }

    fn upload(
        mut self: Box<Self>,
        site: &SnapshotSite,
        key_groups: KeyGroupRange,
        meta: Vec<u8>,
    ) -> Result<KeyedHandle> {
        let frozen = self.frozen.take().ok_or_else(|| Error::internal("uploaded before it was frozen"))?;
        let names = file_names(&frozen.0)?;
        let files =
            in_parallel(self.shared.config.transfers, &names, |name| self.file(site, &frozen.0, name))?;
        let shared = files.iter().filter(|file| is_shared(&file.name));
        *self.uploaded.lock() = shared.map(|file| (file.name.clone(), file.clone())).collect();
        Ok(KeyedHandle { backend: KIND.to_string(), key_groups, files, meta })
    }
}

impl RocksSnapshotter {
    fn file(&self, site: &SnapshotSite, directory: &Path, name: &str) -> Result<FileHandle> {
        let local = directory.join(name);
        if !is_shared(name) {
            return upload_private(site, name, &local);
        }
        let before = self.uploaded.lock().get(name).cloned();
        if let Some(known) = before.and_then(|before| site.known.get(&before.hash)) {
            return Ok(FileHandle { name: name.to_string(), ..known.clone() });
        }
        upload_shared(site, name, &local)
    }
}

/// The files of a checkpoint, sorted; without RocksDB's empty log files.
fn file_names(directory: &PathBuf) -> Result<Vec<String>> {
    let failed = |error| Error::external(format!("cannot list {}", directory.display())).caused_by(error);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_empty = entry.metadata().map_err(failed)?.len() == 0;
        if !(name.ends_with(".log") && is_empty) {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
