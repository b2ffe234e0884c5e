//! Windows over event time: which window a row falls into, and the operator that keeps one state
//! per key and window and fires it by the watermark.
//!
//! This module knows the engine's contracts and the aggregates; it knows no SQL.

mod due;
mod saved_watermark;
mod stream;
mod tumbling;
mod tumbling_operator;

#[cfg(test)]
mod tests;

pub use stream::{TumblingWindow, WindowExt, WindowedStream};
pub use tumbling::{Tumbling, WindowSize};
