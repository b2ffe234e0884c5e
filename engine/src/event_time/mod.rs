//! Where rows get their event time, and where watermarks are made of it: at the head of a source's
//! task, and in an operator behind any other.
//!
//! Knows records, time, metrics and the trait of operators; nothing of tasks.

mod assign;
mod row_time;

pub use assign::AssignWatermarks;
pub use row_time::{RowTime, Timed};
