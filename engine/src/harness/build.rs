//! How a harness is set up: how many instances, over which state.

use std::sync::Arc;

use super::operator_harness::{OperatorHarness, Site};
use super::scratch::Scratch;
use super::{HarnessInput, HarnessSnapshot};
use crate::Result;
use crate::checkpoint::{CheckpointStorage, MemoryStorage};
use crate::graph::Uid;
use crate::operator::OperatorFactory;
use crate::state::{MapBackend, StateBackend};
use crate::time::Micros;

/// The number of key groups unless another is asked for, as in a job.
const MAX_PARALLELISM: u32 = 128;

/// Sets a harness up. Open it fresh, or restore it from a snapshot of an earlier one.
#[derive(Clone)]
pub struct HarnessBuilder {
    factory: Arc<dyn OperatorFactory>,
    inputs: Vec<HarnessInput>,
    parallelism: u32,
    max_parallelism: u32,
    now: Micros,
    backend: Option<Arc<dyn StateBackend>>,
    storage: Option<Arc<dyn CheckpointStorage>>,
}

impl HarnessBuilder {
    /// A harness for the operator of this factory.
    pub fn new(factory: Arc<dyn OperatorFactory>, inputs: Vec<HarnessInput>) -> Self {
        HarnessBuilder {
            factory,
            inputs,
            parallelism: 1,
            max_parallelism: MAX_PARALLELISM,
            now: 0,
            backend: None,
            storage: None,
        }
    }

    /// How many instances; 1 unless given, at most the number of key groups.
    #[must_use]
    pub fn parallelism(mut self, parallelism: u32) -> Self {
        self.parallelism = parallelism.max(1);
        self
    }

    /// The number of key groups; 128 unless given.
    #[must_use]
    pub fn max_parallelism(mut self, max_parallelism: u32) -> Self {
        self.max_parallelism = max_parallelism.max(1);
        self
    }

    /// The processing time at the start, in microseconds; 0 unless given.
    #[must_use]
    pub fn now(mut self, now: Micros) -> Self {
        self.now = now;
        self
    }

    /// State in another backend than a map in memory. While a snapshot is begun and not
    /// completed no helper writes, so a backend that waits for one must not come to its bounds.
    #[must_use]
    pub fn backend(mut self, backend: Arc<dyn StateBackend>) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Checkpoints in another store than one in memory.
    #[must_use]
    pub fn storage(mut self, storage: Arc<dyn CheckpointStorage>) -> Self {
        self.storage = Some(storage);
        self
    }

    /// Opens the operator's instances fresh.
    ///
    /// # Errors
    /// What the factory or an instance refuses.
    pub fn open(&self) -> Result<OperatorHarness> {
        self.start(None)
    }

    /// Opens the operator's instances from a snapshot, which another parallelism may have made.
    ///
    /// # Errors
    /// What the factory or an instance refuses.
    pub fn restore(&self, snapshot: &HarnessSnapshot) -> Result<OperatorHarness> {
        self.start(Some(snapshot))
    }

    fn start(&self, snapshot: Option<&HarnessSnapshot>) -> Result<OperatorHarness> {
        let storage = match (snapshot, &self.storage) {
            (Some(snapshot), _) => snapshot.storage.clone(),
            (None, Some(storage)) => storage.clone(),
            (None, None) => Arc::new(MemoryStorage::new()),
        };
        let scratch = Scratch::new();
        let backend = match &self.backend {
            Some(backend) => backend.clone(),
            None => Arc::new(MapBackend::new(scratch.path())),
        };
        let site = Site {
            uid: Uid::new("operator")?,
            parallelism: self.parallelism.min(self.max_parallelism),
            max_parallelism: self.max_parallelism,
            backend,
            storage,
            _scratch: scratch,
        };
        OperatorHarness::start(self.factory.as_ref(), self.inputs.clone(), site, self.now, snapshot)
    }
}
