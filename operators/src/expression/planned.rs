//! An expression that is planned for one schema.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::ScalarValue;
use datafusion_expr::{ColumnarValue, Expr, ExprSchemable};
use datafusion_physical_expr::PhysicalExpr;
use thalweg_engine::record::time_type;
use thalweg_engine::{Error, Result};

use super::session;

/// What is left to do for a batch.
#[derive(Clone)]
enum Work {
    /// A column as it is: costs nothing.
    Column(usize),
    /// The same value for every row.
    Constant(ScalarValue),
    Compute(Arc<dyn PhysicalExpr>),
}

/// An expression that is planned for one schema; cheap to clone, evaluated without locks.
#[derive(Clone)]
pub struct PlannedExpression {
    work: Work,
    data_type: DataType,
    nullable: bool,
    text: Arc<str>,
}

impl PlannedExpression {
    /// Plans `expr`, which `text` shows to people, for batches of `schema`.
    pub(super) fn new(expr: Expr, schema: &SchemaRef, text: Arc<str>) -> Result<PlannedExpression> {
        let plan = || -> Result<PlannedExpression, String> {
            let df_schema = session::df_schema(schema)?;
            let prepared = session::prepare(expr, &df_schema)?;
            if let Expr::Column(column) = &prepared {
                let index = schema.index_of(&column.name).map_err(|error| error.to_string())?;
                let field = schema.field(index);
                let (data_type, nullable) = (field.data_type().clone(), field.is_nullable());
                return Ok(PlannedExpression {
                    work: Work::Column(index),
                    data_type,
                    nullable,
                    text: text.clone(),
                });
            }
            let own = prepared.get_type(&df_schema).map_err(|error| session::explain(&error))?;
            let wanted = engine_type(&own);
            let prepared = if own == wanted {
                prepared
            } else {
                let cast = prepared.cast_to(&wanted, &df_schema);
                session::prepare(cast.map_err(|error| session::explain(&error))?, &df_schema)?
            };
            if let Expr::Literal(value, _) = prepared {
                let nullable = value.is_null();
                let data_type = value.data_type();
                return Ok(PlannedExpression {
                    work: Work::Constant(value),
                    data_type,
                    nullable,
                    text: text.clone(),
                });
            }
            let physical = session::physical(&prepared, &df_schema)?;
            let data_type = physical.data_type(schema).map_err(|error| session::explain(&error))?;
            let nullable = physical.nullable(schema).map_err(|error| session::explain(&error))?;
            Ok(PlannedExpression { work: Work::Compute(physical), data_type, nullable, text: text.clone() })
        };
        plan().map_err(|message| Error::user(format!("expression `{text}`: {message}")))
    }

    /// The type of the result, one of the engine's.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether the result can hold nulls.
    pub fn is_nullable(&self) -> bool {
        self.nullable
    }

    /// The index of the column that the expression only passes on.
    pub fn column(&self) -> Option<usize> {
        match self.work {
            Work::Column(index) => Some(index),
            _ => None,
        }
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// One value for each row of `records`, whose schema is the one that was planned for.
    ///
    /// # Errors
    /// A user error that shows the expression when it fails for a row (a division by zero, a
    /// cast that does not fit).
    pub fn evaluate(&self, records: &RecordBatch) -> Result<ArrayRef> {
        match self.evaluate_columnar(records)? {
            ColumnarValue::Array(array) => Ok(array),
            ColumnarValue::Scalar(value) => {
                value.to_array_of_size(records.num_rows()).map_err(|error| self.failed(&error))
            }
        }
    }

    /// As [`PlannedExpression::evaluate`], but a constant stays one value.
    pub(crate) fn evaluate_columnar(&self, records: &RecordBatch) -> Result<ColumnarValue> {
        match &self.work {
            Work::Column(index) => Ok(ColumnarValue::Array(records.column(*index).clone())),
            Work::Constant(value) => Ok(ColumnarValue::Scalar(value.clone())),
            Work::Compute(physical) => physical.evaluate(records).map_err(|error| self.failed(&error)),
        }
    }

    fn failed(&self, error: &datafusion_common::DataFusionError) -> Error {
        Error::user(format!("expression `{}` failed: {}", self.text, session::explain(error)))
    }
}

/// The engine's type for a computed one: strings are views, times are UTC microseconds.
fn engine_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Timestamp(_, _) => time_type(),
        other => other.clone(),
    }
}
