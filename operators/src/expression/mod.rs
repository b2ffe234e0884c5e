//! DataFusion's expressions as the engine's [`Expression`](thalweg_engine::graph::Expression):
//! written in Rust (`col("tokens").gt(lit(100))`) or as SQL text (`dep_delay > 60`), planned once
//! per schema (names resolved, types coerced, constants folded), evaluated on whole batches.
//!
//! The rules: an expression is a pure function of its row, so `now()` and `random()` are refused,
//! for a replay would see something else; a result is in the engine's types (`Utf8View`, UTC
//! microseconds); an error names the expression, and an unknown column comes with the one that
//! was probably meant. This module knows Arrow, DataFusion and the engine's trait, no operator.

mod column_expression;
mod functions;
mod planned;
mod punctuated;
mod session;
mod suggestion;

pub use column_expression::ColumnExpression;
pub use planned::PlannedExpression;
pub use punctuated::punctuated;
pub use suggestion::did_you_mean;
