//! What a Prism sink needs of the bench beside rows and barriers: attempts, fates, commits.

use std::sync::Arc;
use std::time::Instant;

use thalweg_connectors::prism::{PrismSink, PrismTarget};
use thalweg_engine::Result;
use thalweg_engine::checkpoint::{CheckpointId, CheckpointStorage, MemoryStorage};
use thalweg_engine::sink::{Committable, Committer};

pub use crate::sink_bench::{Bench, Values, values};
use crate::world::{BOUND, Topic};

/// A sink of the bench's rows, keyed by the number's last digits.
pub fn sink(topic: &Topic, target: PrismTarget) -> PrismSink {
    PrismSink::new(&topic.name, target, || Ok(Box::new(Values))).key(["key"])
}

impl Bench {
    /// The first attempt, on a store of its own.
    pub fn new(sink: &PrismSink) -> Bench {
        Self::restored(sink, 1, 0, Arc::new(MemoryStorage::new()))
    }

    /// An instance of a later attempt, after `checkpoints`.
    pub fn restored(
        sink: &PrismSink,
        attempt: u64,
        checkpoints: u64,
        storage: Arc<dyn CheckpointStorage>,
    ) -> Bench {
        Self::open(sink.clone(), attempt, checkpoints, storage)
    }

    pub fn completed(&mut self, id: CheckpointId) {
        self.operator.checkpoint_completed(id).unwrap();
    }

    pub fn aborted(&mut self, id: CheckpointId) {
        self.operator.checkpoint_aborted(id).unwrap();
    }

    pub fn commit(&self, committables: &[Committable]) -> Result<()> {
        let start = Instant::now();
        self.committer().commit(committables, &*self.storage, &|| start.elapsed() > BOUND)
    }

    pub fn committer(&self) -> Arc<dyn Committer> {
        self.committer.clone().unwrap()
    }
}
