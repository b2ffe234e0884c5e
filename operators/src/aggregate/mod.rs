//! Aggregates as columns over dense slots: one virtual call per aggregate and batch, the state of
//! a key as words in its row of the columnar state (the shape of DataFusion's `GroupsAccumulator`,
//! `datafusion/expr-common/src/groups_accumulator.rs`, over a table that is durable).
//!
//! Semantics are SQL's: nulls are skipped, `count(*)` counts rows, anything but a count over no
//! value is null. A sum that leaves its 64 bits is an error, never a wrapped number. The mean of
//! integers is exact until it is emitted. `first` and `last` are by event time, ties by value, so
//! they do not depend on the order in which rows come. Strings compare by their bytes, floats in
//! IEEE 754's total order (`NaN` is the greatest).
//!
//! This module knows Arrow and the engine's columnar state. The costs of a row are a few
//! nanoseconds per aggregate; strings cost a copy when they become the new value.

mod count;
mod extreme;
mod mean;
mod ordered;
mod set;
mod spec;
mod sum;

pub use set::AggregateSet;
pub use spec::{AggregateFunction, AggregateSpec, Argument, count, first, last, max, mean, min, sum};
