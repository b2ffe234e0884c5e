//! A YAML file as a tree that knows its positions, and the means to check all of it: every
//! mistake is gathered with file, line, column and key, and all are reported at once.
//!
//! The rules: nothing here stops at the first mistake; a scalar is text until somebody says what
//! was expected of it (so `no` is never a boolean by accident); environment variables are put in
//! after parsing, so a value cannot become structure; what came out of the environment or a file
//! is never shown again (F14). This module knows YAML and nobody else of ours but "did you mean".

mod checker;
mod foreign;
mod interpolation;
mod mistake;
mod table;
mod tree;
mod unit;

pub use checker::{Checker, Environment, Place, Placed, ProcessEnvironment};
pub use foreign::{FilePath, Guarded, Masks, Text};
pub use mistake::{Mistake, Mistakes};
pub use table::Table;
pub use thalweg_engine::Secret;
pub use thalweg_engine::time::show_duration;
pub use tree::{Entry, Node, Position, Value, parse};
pub use unit::{parse_bytes, parse_duration, show_bytes};
