//! An expression as a job's author writes it, not yet planned for a schema.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion_expr::Expr;
use thalweg_engine::graph::Expression;
use thalweg_engine::{Error, Result};

use super::{PlannedExpression, session};

#[derive(Clone)]
enum Form {
    Logical(Box<Expr>),
    Sql,
}

/// An expression over the columns of a row: DataFusion's [`Expr`] or SQL text.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use datafusion_expr::{col, lit};
/// use thalweg_operators::expression::ColumnExpression;
///
/// let schema = Arc::new(Schema::new(vec![Field::new("tokens", DataType::Int64, false)]));
/// let in_rust = ColumnExpression::from(col("tokens").gt(lit(100)));
/// let in_sql = ColumnExpression::from("tokens > 100");
/// assert_eq!(in_rust.plan(&schema)?.data_type(), &DataType::Boolean);
/// assert_eq!(in_sql.plan(&schema)?.data_type(), &DataType::Boolean);
/// let error = ColumnExpression::from("tokns > 100").plan(&schema).err().map(|error| error.to_string());
/// assert!(error.is_some_and(|error| error.contains("did you mean \"tokens\"?")));
/// # Ok::<(), thalweg_engine::Error>(())
/// ```
#[derive(Clone)]
pub struct ColumnExpression {
    form: Form,
    text: Arc<str>,
    /// The last plan, for callers that hold the expression as the engine's trait.
    memo: Arc<Mutex<Option<(SchemaRef, PlannedExpression)>>>,
}

impl ColumnExpression {
    fn new(form: Form, text: &str) -> Self {
        ColumnExpression { form, text: text.trim().into(), memo: Arc::new(Mutex::new(None)) }
    }

    /// The expression as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The name of the column that it makes: its alias, or the column that it only passes on.
    pub fn output_name(&self) -> Option<String> {
        match &self.form {
            Form::Logical(expr) => match expr.as_ref() {
                Expr::Alias(alias) => Some(alias.name.clone()),
                Expr::Column(column) => Some(column.name.clone()),
                _ => None,
            },
            Form::Sql => session::alias_of(&self.text).or_else(|| plain_name(&self.text)),
        }
    }

    /// Plans the expression for batches of `schema`.
    ///
    /// # Errors
    /// A user error that shows the expression and says what is wrong with it: an unknown column
    /// (with the one that was probably meant), types that do not fit, an aggregate, a function
    /// that is no function of its row.
    pub fn plan(&self, schema: &SchemaRef) -> Result<PlannedExpression> {
        let expr = match &self.form {
            Form::Logical(expr) => expr.as_ref().clone(),
            Form::Sql => session::df_schema(schema)
                .and_then(|df_schema| session::parse(&self.text, &df_schema))
                .map_err(|message| Error::user(format!("expression `{}`: {message}", self.text)))?,
        };
        PlannedExpression::new(expr, schema, self.text.clone())
    }

    /// Plans the expression as a condition.
    ///
    /// # Errors
    /// As [`ColumnExpression::plan`], and when the result is not true or false.
    pub fn plan_condition(&self, schema: &SchemaRef) -> Result<PlannedExpression> {
        let planned = self.plan(schema)?;
        if matches!(planned.data_type(), DataType::Boolean) {
            return Ok(planned);
        }
        Err(Error::user(format!(
            "expression `{}` is {}, a condition must be true or false",
            self.text,
            planned.data_type()
        )))
    }

    fn planned_for(&self, schema: SchemaRef) -> Result<PlannedExpression> {
        let mut memo = self.memo.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, planned)) = memo.as_ref()
            && (Arc::ptr_eq(known, &schema) || known == &schema)
        {
            return Ok(planned.clone());
        }
        let planned = self.plan(&schema)?;
        *memo = Some((schema, planned.clone()));
        Ok(planned)
    }
}

/// `text` when it is nothing but a column's name.
fn plain_name(text: &str) -> Option<String> {
    if let Some(quoted) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        return (!quoted.contains('"')).then(|| quoted.to_string());
    }
    let mut characters = text.chars();
    let begins = characters.next().is_some_and(|first| first.is_alphabetic() || first == '_');
    (begins && characters.all(|c| c.is_alphanumeric() || c == '_')).then(|| text.to_string())
}

impl From<Expr> for ColumnExpression {
    fn from(expr: Expr) -> Self {
        let text = expr.clone().unalias().human_display().to_string();
        ColumnExpression::new(Form::Logical(Box::new(expr)), &text)
    }
}

impl From<&str> for ColumnExpression {
    fn from(sql: &str) -> Self {
        ColumnExpression::new(Form::Sql, sql)
    }
}

impl From<String> for ColumnExpression {
    fn from(sql: String) -> Self {
        ColumnExpression::new(Form::Sql, &sql)
    }
}

impl From<&ColumnExpression> for ColumnExpression {
    fn from(expression: &ColumnExpression) -> Self {
        expression.clone()
    }
}

impl std::fmt::Debug for ColumnExpression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}`", self.text)
    }
}

impl Expression for ColumnExpression {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        Ok(self.planned_for(Arc::new(schema.clone()))?.data_type().clone())
    }

    fn evaluate(&self, records: &RecordBatch) -> Result<ArrayRef> {
        self.planned_for(records.schema())?.evaluate(records)
    }

    fn describe(&self) -> String {
        self.text.to_string()
    }
}
