//! thalweg-operators

pub mod process;
pub mod typed;
