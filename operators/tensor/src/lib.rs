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
pub mod cpu;
