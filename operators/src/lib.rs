//! What runs inside the engine: expressions, filters, projections, windows, keyed processes.
//!
//! This crate knows the engine and DataFusion, and no connector: an operator gets batches and
//! gives batches. Arrows run one way, operators to engine.

pub mod aggregate;
mod bound_input;
#[cfg(feature = "sql")]
pub mod expression;
#[cfg(feature = "sql")]
pub mod filter;
pub mod keyed_aggregate;
pub mod keyed_count;
pub mod near_duplicates;
pub mod process;
#[cfg(feature = "sql")]
pub mod project;
#[cfg(feature = "sql")]
mod stream_ext;
#[cfg(feature = "tensor")]
pub mod tensor;
pub mod typed;
pub mod union;
pub mod window;

#[cfg(feature = "sql")]
pub use stream_ext::{StreamExt, union_schema};
