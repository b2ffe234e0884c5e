//! One instance's RocksDB: state and timers in a column family each.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, FlushOptions, WriteBatch, WriteBufferManager};

use super::owned_directory::OwnedDirectory;
use super::rocks_options::{Shared, range_options, write_options};
use super::rocks_snapshot::{RocksSnapshotter, Uploaded};
use super::store::{Family, KvOp, KvSnapshotter, KvStore};
use crate::{Error, Result};

const STATE: &str = "state";
const TIMERS: &str = "timers";
/// Both families, as RocksDB names them.
pub(super) const FAMILIES: [(Family, &str); 2] = [(Family::State, STATE), (Family::Timers, TIMERS)];

/// The property that says what memtables hold.
const MEMTABLE_BYTES: &str = "rocksdb.cur-size-all-mem-tables";

/// An error of RocksDB.
pub(super) fn failed(what: &str, path: &Path, error: rocksdb::Error) -> Error {
    Error::external(format!("RocksDB in {}: cannot {what}", path.display())).caused_by(error)
}

/// While all memtables of the process are over their bytes, an instance that holds this share of them
/// writes its own out before it writes on.
const FLUSH_SHARE: u64 = 16;

/// An open RocksDB, closed and removed when the store and its last snapshotter are gone.
pub(super) struct Instance {
    // The order matters: the database is closed before its directory is removed.
    db: DB,
    directory: OwnedDirectory,
    write_buffers: WriteBufferManager,
}

fn descriptors(shared: &Shared) -> Vec<ColumnFamilyDescriptor> {
    FAMILIES.iter().map(|(_, name)| ColumnFamilyDescriptor::new(*name, shared.options())).collect()
}

impl Instance {
    /// Opens, or makes, the database in a directory.
    pub(super) fn open(shared: &Shared, directory: OwnedDirectory) -> Result<Instance> {
        let db = DB::open_cf_descriptors(&shared.options(), &directory.0, descriptors(shared))
            .map_err(|error| failed("open it", &directory.0, error))?;
        Ok(Instance { db, directory, write_buffers: shared.write_buffers.clone() })
    }

    /// Opens the database in a directory to copy from it.
    pub(super) fn open_read_only(shared: &Shared, directory: OwnedDirectory) -> Result<Instance> {
        let mut options = shared.options();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let db = DB::open_cf_descriptors_read_only(&options, &directory.0, descriptors(shared), false)
            .map_err(|error| failed("open it to read", &directory.0, error))?;
        Ok(Instance { db, directory, write_buffers: shared.write_buffers.clone() })
    }

    pub(super) fn db(&self) -> &DB {
        &self.db
    }

    pub(super) fn path(&self) -> &Path {
        &self.directory.0
    }

    pub(super) fn failed(&self, what: &str, error: rocksdb::Error) -> Error {
        failed(what, self.path(), error)
    }

    pub(super) fn family(&self, family: Family) -> Result<&ColumnFamily> {
        let name = match family {
            Family::State => STATE,
            Family::Timers => TIMERS,
        };
        self.db.cf_handle(name).ok_or_else(|| Error::internal(format!("no column family {name}")))
    }

    /// Waits for memtables to be written out when all of the process hold more than they may: RocksDB
    /// itself only begins to, and a writer is faster than a disk. Each waits for its own alone.
    fn keep_memtables_bounded(&self) -> Result<()> {
        let bytes_max = self.write_buffers.get_buffer_size();
        if self.write_buffers.get_usage() <= bytes_max {
            return Ok(());
        }
        let own = FAMILIES.iter().map(|(family, _)| self.property(*family, MEMTABLE_BYTES).unwrap_or(0));
        if own.sum::<u64>() < bytes_max as u64 / FLUSH_SHARE {
            return Ok(());
        }
        let families = [self.family(Family::State)?, self.family(Family::Timers)?];
        let flushed = self.db.flush_cfs_opt(&[&families[0], &families[1]], &FlushOptions::default());
        flushed.map_err(|error| self.failed("write memtables out", error))
    }

    fn property(&self, family: Family, name: &str) -> Option<u64> {
        self.db.property_int_value_cf(self.family(family).ok()?, name).ok().flatten()
    }

    pub(super) fn write(&self, ops: &mut dyn Iterator<Item = KvOp>) -> Result<()> {
        self.keep_memtables_bounded()?;
        let (state, timers) = (self.family(Family::State)?, self.family(Family::Timers)?);
        let family = |family| if family == Family::State { state } else { timers };
        let mut batch = WriteBatch::default();
        for op in ops {
            match op {
                KvOp::Put(to, key, value) => batch.put_cf(family(to), key, value),
                KvOp::Delete(to, key) => batch.delete_cf(family(to), key),
            }
        }
        self.db.write_opt(batch, &write_options()).map_err(|error| self.failed("write", error))
    }

    pub(super) fn scan(
        &self,
        family: Family,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        if range.start >= range.end {
            return Ok(());
        }
        let options = range_options(range.start, range.end);
        let mut rows = self.db.raw_iterator_cf_opt(self.family(family)?, options);
        rows.seek(range.start);
        while let Some((key, value)) = rows.item() {
            if !visit(key, value)? {
                break;
            }
            rows.next();
        }
        rows.status().map_err(|error| self.failed("scan", error))
    }
}

/// The task's end of an instance.
pub(super) struct RocksStore {
    pub(super) shared: Arc<Shared>,
    pub(super) instance: Arc<Instance>,
    pub(super) uploaded: Arc<Mutex<Uploaded>>,
}

impl KvStore for RocksStore {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let family = self.instance.family(family)?;
        self.instance.db().get_cf(family, key).map_err(|error| self.instance.failed("read", error))
    }

    fn multi_get(&self, family: Family, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>> {
        let family = self.instance.family(family)?;
        let is_sorted = keys.is_sorted();
        let found = self.instance.db().batched_multi_get_cf(family, keys.iter().copied(), is_sorted);
        found
            .into_iter()
            .map(|value| match value {
                Ok(value) => Ok(value.map(|pinned| pinned.to_vec())),
                Err(error) => Err(self.instance.failed("read", error)),
            })
            .collect()
    }

    fn scan(
        &self,
        family: Family,
        range: Range<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        self.instance.scan(family, range, visit)
    }

    fn write(&mut self, ops: &mut dyn Iterator<Item = KvOp>) -> Result<()> {
        self.instance.write(ops)
    }

    fn snapshotter(&self) -> Box<dyn KvSnapshotter> {
        Box::new(RocksSnapshotter {
            shared: Arc::clone(&self.shared),
            instance: Arc::clone(&self.instance),
            uploaded: Arc::clone(&self.uploaded),
            frozen: None,
        })
    }

    fn bytes(&self) -> u64 {
        let names = ["rocksdb.total-sst-files-size", MEMTABLE_BYTES];
        let all = FAMILIES.iter().flat_map(|(family, _)| names.map(|name| (*family, name)));
        all.filter_map(|(family, name)| self.instance.property(family, name)).sum()
    }
}
