//! What a program that builds a job needs: `use thalweg::prelude::*;`.

pub use datafusion::prelude::{Expr, col, lit};
pub use thalweg_engine::graph::{Environment, KeyedStream, Stream};
pub use thalweg_engine::time::{Micros, Watermark, WatermarkStrategy};
pub use thalweg_engine::{Context, Error, Result};
pub use thalweg_operators::StreamExt;
pub use thalweg_operators::expression::ColumnExpression;
