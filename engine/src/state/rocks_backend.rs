//! State in RocksDB: one instance for each keyed operator and subtask, memory shared by all.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::owned_directory::{OwnedDirectory, fresh_directory};
use super::rocks_options::{RocksConfig, Shared};
use super::rocks_restore::restore;
use super::rocks_store::RocksStore;
use super::store::{KvStore, StateBackend, StoreSite};
use crate::Result;

/// How handles name this kind of store.
pub(super) const KIND: &str = "rocksdb";

/// Opens RocksDB instances. One per process.
pub struct RocksBackend {
    shared: Arc<Shared>,
    opened: AtomicU64,
}

impl RocksBackend {
    /// A backend in `config.directory`, which is cleared: nothing local outlives a process.
    ///
    /// # Errors
    /// An external error that names the directory.
    pub fn new(config: RocksConfig) -> Result<RocksBackend> {
        fresh_directory(&config.directory, "instances")?;
        fresh_directory(&config.directory, "scratch")?;
        Ok(RocksBackend { shared: Arc::new(Shared::new(config)), opened: AtomicU64::new(0) })
    }
}

impl StateBackend for RocksBackend {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn open(&self, site: &StoreSite<'_>) -> Result<Box<dyn KvStore>> {
        let instances = self.shared.config.directory.join("instances");
        let name = format!("{}-{}", site.unique, self.opened.fetch_add(1, Ordering::Relaxed));
        let directory = OwnedDirectory(fresh_directory(&instances, &name)?);
        let (instance, uploaded) = restore(&self.shared, site, directory)?;
        Ok(Box::new(RocksStore {
            shared: Arc::clone(&self.shared),
            instance: Arc::new(instance),
            uploaded: Arc::new(Mutex::new(uploaded)),
        }))
    }

    fn scratch(&self, unique: &str) -> Result<PathBuf> {
        fresh_directory(&self.shared.config.directory.join("scratch"), unique)
    }

    fn instance_bytes(&self) -> Option<usize> {
        self.shared.config.instance_bytes
    }

    fn waits_for_flush(&self) -> bool {
        self.shared.config.waits_for_flush
    }
}
