//! Tensor transforms in a stream: rows are gathered to batches, computed on the CPU or a GPU beside
//! the task, and leave with the columns that were made of them.
//!
//! This module knows `thalweg-tensor` (the graph and its backends) and the engine. What is decided
//! (which rows make a batch, what may leave, how far the watermark passes) is in `gather` and
//! `order` and is pure; `worker` is where threads are; `pipeline` is the operator.

mod artifact;
mod batching;
mod compute;
mod embed_texts;
mod gather;
mod inputs;
mod model_cache;
mod order;
mod pipeline;
mod pipeline_metrics;
mod plan_compute;
mod provenance;
mod reference_watch;
mod rejected;
mod tensor_ext;
mod transform;
mod worker;

#[cfg(test)]
mod pipeline_tests;
#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod transform_tests;

pub use artifact::Artifact;
pub use batching::Batching;
pub use embed_texts::embed_texts;
pub use provenance::Fingerprint;
pub use reference_watch::ReferenceSource;
pub use rejected::OnBadRow;
pub use tensor_ext::TensorExt;
/// The crate that knows tensors and nothing of streams.
pub use thalweg_tensor;
/// What a transform is made of.
pub use thalweg_tensor::{
    Backend, DeviceChoice, Element, Graph, GraphBuilder, ReferenceMatrix, SentenceEncoder, Tokenizer,
    Weights, op, spec,
};
pub use transform::Transform;

use provenance::Provenance;
use reference_watch::{ReferenceWatch, References};

/// A transform's error as the engine's: whose it is, and whether another try can help.
fn tensor_error(error: thalweg_tensor::Error) -> thalweg_engine::Error {
    use thalweg_engine::Error;
    use thalweg_tensor::Error as Tensor;
    let text = error.to_string();
    match error {
        Tensor::Graph { .. } | Tensor::Weights { .. } => Error::user(text).permanent(),
        Tensor::Input { .. } => Error::user(text),
        // A lost device or a full one may be there again when the job restarts.
        Tensor::OutOfMemory { .. } | Tensor::Device { .. } => Error::external(text),
        Tensor::Io { source, .. } => Error::external(text).caused_by(source),
    }
}
