//! What computes a graph: the CPU, or a CUDA device.
//!
//! A backend is shared by tasks; a plan belongs to one task. Batches go in and come out in the
//! same order. One conformance suite (`tests/conformance`) holds every backend to the meaning that
//! `op` gives, within a stated tolerance, and to the same bits for the same batch.

use std::sync::Arc;
use std::time::Duration;

use crate::op::ReferenceId;
use crate::weights::Weights;
use crate::{Graph, ReferenceMatrix, Result, TensorBatch};

/// What a plan may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rows of a batch, at most; 100,000 by default.
    pub rows_max: usize,
    /// Tokens of a batch, at most, over all rows; a batch beyond is done in parts.
    pub tokens_max: usize,
    /// Threads that may compute at once on the CPU, the caller's among them.
    pub threads: usize,
    /// Bytes that weights, scratch and batches in flight may take on the device (or of scratch, on
    /// the CPU).
    pub memory_bytes_max: usize,
    /// Batches that may be under way at once.
    pub in_flight_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            rows_max: 100_000,
            tokens_max: 1 << 20,
            threads: 1,
            memory_bytes_max: 4 << 30,
            in_flight_max: 2,
        }
    }
}

/// Makes plans for one device.
pub trait Backend: Send + Sync {
    /// What computes, for logs, metrics and errors: `cpu (avx512, 2 threads)`, `cuda:0 (NVIDIA H100)`.
    fn device(&self) -> String;

    /// Prepares a graph: packs or uploads its weights, compiles its kernels.
    /// `references` are the graph's reference matrices, in its order.
    ///
    /// # Errors
    /// When weights or matrices do not fit the graph, when they do not fit into memory, or when the
    /// device fails.
    fn compile(
        &self,
        graph: &Graph,
        weights: &Weights,
        references: &[Arc<ReferenceMatrix>],
        limits: &Limits,
    ) -> Result<Box<dyn Plan>>;
}

/// A graph ready to run, for one task.
pub trait Plan: Send {
    /// Starts a batch of the graph's inputs. With [`Limits::in_flight_max`] batches under way it
    /// first waits for the oldest to be computed.
    ///
    /// # Errors
    /// When the batch is not of the graph's input types, or the device fails; nothing of the batch
    /// is under way then.
    fn submit(&mut self, batch: TensorBatch) -> Result<()>;

    /// Whether [`Plan::finish`] would not wait: the oldest batch is done, or there is none.
    fn is_ready(&self) -> bool;

    /// Waits for the oldest batch, and gives the graph's outputs for it; nothing where no batch is
    /// under way.
    ///
    /// # Errors
    /// When the device fails or its memory is too small even for parts of the batch. The batch is
    /// no longer under way then.
    fn finish(&mut self) -> Result<Option<Finished>>;

    /// Says which matrix will be set, so that a device that needs a copy of it begins to make one.
    /// Nothing changes until it is set.
    ///
    /// # Errors
    /// As [`Plan::set_reference`]: the matrix is not to be set then. What was expected is forgotten.
    fn expect_reference(&mut self, _reference: ReferenceId, _matrix: &Arc<ReferenceMatrix>) -> Result<()> {
        Ok(())
    }

    /// Replaces a reference matrix. Batches that are under way are done with the old one.
    ///
    /// # Errors
    /// When it has another width, or does not fit into memory beside the old one.
    fn set_reference(&mut self, reference: ReferenceId, matrix: Arc<ReferenceMatrix>) -> Result<()>;

    /// Bytes that the plan holds on its device now: weights, references, scratch. What plans of a
    /// process share is counted in equal parts, so that their sum is what they hold together.
    fn device_bytes(&self) -> usize;
}

/// A batch that was computed.
#[derive(Debug)]
pub struct Finished {
    /// The graph's outputs.
    pub batch: TensorBatch,
    /// How long the device computed.
    pub device_time: Duration,
    /// Bytes copied to the device and back; 0 where it is the host.
    pub copied_bytes: usize,
}
