//! What touches the world: formats (bytes to Arrow and back), files, the generator, and the small
//! sources and sinks for tests, demos and benchmarks.
//!
//! This crate knows the engine and no operator of `thalweg-operators`. What decides (which reader
//! reads which split, where a restore goes on) is pure; what blocks does so in a bounded way.

mod bad_times;
pub mod blackhole;
pub mod collect;
pub mod conformance;
pub mod deduplicate;
#[cfg(feature = "files")]
pub mod file;
pub mod format;
pub mod generator;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod print;
#[cfg(feature = "prism")]
pub mod prism;
pub mod record_id;
pub mod sink;
pub mod vec;

mod deal;
#[cfg(feature = "kafka")]
mod deletes;
mod epochs;
mod position;
