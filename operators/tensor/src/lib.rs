//! Tensor transforms over Arrow columns: the same graph on the CPU and on the GPU.
//!
//! A [`Graph`] is a small, shape-checked graph of ops over the rows of a batch; a [`Backend`]
//! compiles it with its [`Weights`] to a [`Plan`], and a plan turns batches into
//! batches. This crate knows Arrow and nothing of the engine: its tests and benchmarks are small
//! programs. The operator that puts a transform into a stream lives in `thalweg-operators`.
//!
//! The rule it lives by: a value is one tensor per row, and a batch of rows is *packed*. Rows of
//! varying length (tokens) lie one behind the other with offsets beside them; nothing is padded,
//! so nothing is computed for padding, and a mask is a row's own length.

pub mod backend;
pub mod bert;
pub mod builder;
pub mod column;
pub mod cpu;
pub mod cuda;
pub mod device_choice;
mod element;
mod error;
mod fingerprint;
pub mod graph;
pub mod hashing;
pub mod op;
pub mod random_encoder;
mod reference_file;
pub mod reference_matrix;
mod reference_terms;
mod safetensors_file;
pub mod spec;
mod tensor;
mod tensor_type;
pub mod text;
pub mod weights;

pub use backend::{Backend, Limits, Plan};
pub use bert::SentenceEncoder;
pub use builder::GraphBuilder;
pub use cpu::CpuBackend;
pub use device_choice::DeviceChoice;
pub use element::Element;
pub use error::{Error, Result};
pub use fingerprint::Fingerprint;
pub use graph::Graph;
pub use reference_matrix::ReferenceMatrix;
pub use spec::GraphSpec;
pub use tensor::{Tensor, TensorBatch};
pub use tensor_type::TensorType;
pub use text::Tokenizer;
pub use weights::Weights;
