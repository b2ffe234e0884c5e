//! thalweg-operators

pub mod aggregate;
mod bound_input;
pub mod keyed_aggregate;
pub mod keyed_count;
pub mod process;
pub mod typed;
pub mod window;
