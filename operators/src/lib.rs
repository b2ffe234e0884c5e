//! What runs inside the engine: expressions, filters, projections, windows, keyed processes.
//!
//! This crate knows the engine and DataFusion, and no connector: an operator gets batches and
//! gives batches. Arrows run one way, operators to engine.

pub mod aggregate;
mod bound_input;
pub mod expression;
pub mod filter;
pub mod keyed_aggregate;
pub mod keyed_count;
pub mod process;
pub mod project;
mod stream_ext;
pub mod typed;
pub mod union;
pub mod window;

pub use stream_ext::{StreamExt, union_schema};
