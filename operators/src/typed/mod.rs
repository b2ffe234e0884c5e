//! Streams of typed records: closures over borrowed rows.
//!
//! A [`TypedStream`] is a stream whose batches can be read as a record; that is checked when the
//! job is built, and the record's columns are found once for a batch. Closures take the row view,
//! so no string is copied to look at it. What closures make is gathered in Arrow builders. The
//! batches of a typed stream may have columns that the record does not know: `filter` and
//! `key_by` keep them, `map` and `flat_map` end with the new record's columns only.
//!
//! This module knows the engine's records, operators and streams, and no expression.

mod filter;
mod flat_map;
mod map;
mod out;
mod side_output;
mod stream;

pub use filter::FilterRows;
pub use flat_map::FlatMapRows;
pub use map::MapRows;
pub use out::Out;
pub use side_output::{SideOutput, SideOutputs};
pub use stream::{TypedExt, TypedKeyedStream, TypedStream};
