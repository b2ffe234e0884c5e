//! A store in memory: two ordered maps. The simulator's, and that of jobs whose state is small.
//!
//! Deterministic, without a thread or a clock. A snapshot is one file, sorted:
//! `"THALMAP1" | (family (u8) | key length (LEB128) | key | value length (LEB128) | value)*`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::key_group::{KeyGroup, KeyGroupRange};
use super::owned_directory::{OwnedDirectory, fresh_directory};
use super::store::{Family, KvOp, KvSnapshotter, KvStore, StateBackend, StoreSite};
use super::varint;
use crate::checkpoint::{KeyedHandle, SnapshotSite, fetch, upload_shared};
use crate::{Context, Error, Result};

const KIND: &str = "map";
const MAGIC: &[u8] = b"THALMAP1";
const FILE_NAME: &str = "state.map";
const FAMILIES: [Family; 2] = [Family::State, Family::Timers];

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Maps([Map; 2]);

impl Maps {
    fn map(&self, family: Family) -> &Map {
        &self.0[family as usize]
    }

    fn write(&mut self, ops: &mut dyn Iterator<Item = KvOp>) {
        for op in ops {
            match op {
                KvOp::Put(family, key, value) => drop(self.0[family as usize].insert(key, value)),
                KvOp::Delete(family, key) => drop(self.0[family as usize].remove(&key)),
            }
        }
    }
}

/// The rows that a scan visits between two looks at the lock.
const SCAN_ROWS: usize = 256;

fn scan(
    maps: &Mutex<Maps>,
    family: Family,
    range: Range<&[u8]>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool>,
) -> Result<()> {
    let mut from = Bound::Included(range.start.to_vec());
    loop {
        if let Bound::Included(first) | Bound::Excluded(first) = &from
            && first.as_slice() >= range.end
        {
            return Ok(());
        }
        // Copied in shares: `visit` runs without the lock, so that it may ask the store itself.
        let bounds = (from.as_ref().map(Vec::as_slice), Bound::Excluded(range.end));
        let copy = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        let rows: Vec<_> =
            maps.lock().map(family).range::<[u8], _>(bounds).take(SCAN_ROWS).map(copy).collect();
        let is_last = rows.len() < SCAN_ROWS;
        for (key, value) in &rows {
            if !visit(key, value)? {
                return Ok(());
            }
        }
        match rows.into_iter().next_back() {
            Some((last, _)) if !is_last => from = Bound::Excluded(last),
            _ => return Ok(()),
        }
    }
}

/// Makes stores in memory.
pub struct MapBackend {
    scratch: PathBuf,
    _owned: Option<OwnedDirectory>,
    opened: AtomicU64,
}

impl MapBackend {
    /// Snapshots are written below `scratch` before they are uploaded.
    pub fn new(scratch: impl Into<PathBuf>) -> MapBackend {
        MapBackend { scratch: scratch.into(), _owned: None, opened: AtomicU64::new(0) }
    }
}

impl Default for MapBackend {
    /// Snapshots are written below a directory of its own in the system's temporary one, which
    /// goes with the backend.
    fn default() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let scratch = std::env::temp_dir().join(format!("thalweg-map-{}-{number}", std::process::id()));
        MapBackend { _owned: Some(OwnedDirectory(scratch.clone())), ..MapBackend::new(scratch) }
    }
}

impl StateBackend for MapBackend {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn open(&self, site: &StoreSite<'_>) -> Result<Box<dyn KvStore>> {
        let mut maps = Maps::default();
        let unique = format!("{}-restore-{}", site.unique, self.opened.fetch_add(1, Ordering::Relaxed));
        for handle in site.restored.keyed() {
            check_kind(handle, KIND)?;
            let directory = fresh_directory(&self.scratch, &unique)?;
            for file in &handle.files {
                let local = directory.join(FILE_NAME);
                fetch(site.storage, file, &local)?;
                let place = || format!("checkpoint file {}", file.path);
                let bytes = fs::read(&local).map_err(|error| {
                    Error::external(format!("cannot read {}", local.display())).caused_by(error)
                })?;
                load(&bytes, site.key_groups, &mut maps).context(place)?;
            }
            // What is left over of a directory of our own costs nothing but space.
            let _ = fs::remove_dir_all(&directory);
        }
        Ok(Box::new(MapStore { maps: Arc::new(Mutex::new(maps)) }))
    }

    fn scratch(&self, unique: &str) -> Result<PathBuf> {
        fresh_directory(&self.scratch, unique)
    }

    fn waits_for_flush(&self) -> bool {
        false
    }
}

/// Whether a handle is of the kind that the job's backend reads.
///
/// # Errors
/// A user error that names both.
pub(super) fn check_kind(handle: &KeyedHandle, kind: &str) -> Result<()> {
    if handle.backend == kind {
        return Ok(());
    }
    Err(Error::user(format!(
        "the checkpoint's state was written by the {} backend, the job runs with {kind}",
        handle.backend
    )))
}

/// Whether a stored key's key group is owned.
fn is_owned(key: &[u8], owned: KeyGroupRange) -> bool {
    key.first_chunk().is_some_and(|group| owned.contains(KeyGroup(u16::from_be_bytes(*group))))
}

fn load(bytes: &[u8], owned: KeyGroupRange, maps: &mut Maps) -> Result<()> {
    let damaged = || Error::damaged("not a snapshot of a state in memory");
    let mut rest = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
    while let Some((&family, after)) = rest.split_first() {
        let map = maps.0.get_mut(usize::from(family)).ok_or_else(damaged)?;
        let (key, after) = varint::read_slice(after)?;
        let (value, after) = varint::read_slice(after)?;
        if is_owned(key, owned) {
            map.insert(key.to_vec(), value.to_vec());
        }
        rest = after;
    }
    Ok(())
}

struct MapStore {
    maps: Arc<Mutex<Maps>>,
}

impl KvStore for MapStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.maps.lock().map(family).get(key).cloned())
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let maps = self.maps.lock();
        Ok(keys.iter().map(|key| maps.map(family).get(*key).cloned()).collect())
    }

    fn scan(
        &self,
        family: Family,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        scan(&self.maps, family, range, visit)
    }

    fn write(&mut self, ops: &mut dyn Iterator<Item = KvOp>) -> Result<()> {
        self.maps.lock().write(ops);
        Ok(())
    }

    fn snapshotter(&self) -> Box<dyn KvSnapshotter> {
        Box::new(MapSnapshotter { maps: Arc::clone(&self.maps), file: None })
    }

    fn bytes(&self) -> u64 {
        let maps = self.maps.lock();
        let row = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.len() + value.len()) as u64;
        maps.0.iter().flatten().map(row).sum()
    }
}

struct MapSnapshotter {
    maps: Arc<Mutex<Maps>>,
    file: Option<PathBuf>,
}

fn write_file(maps: &Maps, path: &Path) -> std::io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    file.write_all(MAGIC)?;
    let mut row = Vec::new();
    for family in FAMILIES {
        for (key, value) in maps.map(family) {
            row.clear();
            row.push(family as u8);
            varint::write(key.len() as u64, &mut row);
            row.extend_from_slice(key);
            varint::write(value.len() as u64, &mut row);
            row.extend_from_slice(value);
            file.write_all(&row)?;
        }
    }
    file.flush()
}

impl KvSnapshotter for MapSnapshotter {
    fn write(&mut self, ops: &mut dyn Iterator<Item = KvOp>) -> Result<()> {
        self.maps.lock().write(ops);
        Ok(())
    }

    fn scan(
        &self,
        family: Family,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        scan(&self.maps, family, range, visit)
    }

    fn freeze(&mut self, site: &SnapshotSite) -> Result<()> {
        let path = site.scratch.join(FILE_NAME);
        write_file(&self.maps.lock(), &path)
            .map_err(|error| Error::external(format!("cannot write {}", path.display())).caused_by(error))?;
        self.file = Some(path);
        Ok(())
    }

    fn upload(
        self: Box<Self>,
        site: &SnapshotSite,
        key_groups: KeyGroupRange,
        meta: Vec<u8>,
    ) -> Result<KeyedHandle> {
        let file = self.file.ok_or_else(|| Error::internal("uploaded before it was frozen"))?;
        let files = vec![upload_shared(site, FILE_NAME, &file)?];
        Ok(KeyedHandle { backend: KIND.to_string(), key_groups, files, meta })
    }
}
