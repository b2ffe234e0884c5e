//! Makes each row's columns anew: renames, computes, leaves out.
//!
//! Cost: a column that is only passed on is shared, not copied; a projection that changes nothing
//! passes the batch as it is. The event-time column stays event time when it is passed on, under
//! whatever name; the columns that the edge's mode needs must stay.

use std::sync::Arc;

use arrow::array::RecordBatchOptions;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use thalweg_engine::operator::{Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema, Mode, OP_COLUMN, RESERVED_PREFIX};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};

use crate::expression::{ColumnExpression, PlannedExpression};

/// Makes each row's columns anew.
#[derive(Clone, Debug)]
pub struct Project {
    columns: Vec<(String, ColumnExpression)>,
    /// Whether the input's columns stay; those named in `columns` are replaced in place.
    keeps_input: bool,
    /// What the output is said to be, when it must be wider than what was derived.
    declared: Option<SchemaRef>,
}

impl Project {
    /// The output has exactly these columns: names and what they are computed from.
    pub fn new<N, E>(columns: impl IntoIterator<Item = (N, E)>) -> Self
    where
        N: Into<String>,
        E: Into<ColumnExpression>,
    {
        let columns = columns.into_iter().map(|(name, expr)| (name.into(), expr.into())).collect();
        Project { columns, keeps_input: false, declared: None }
    }

    /// The output has the input's columns and these; one of the same name is replaced in place.
    pub fn with_columns<N, E>(columns: impl IntoIterator<Item = (N, E)>) -> Self
    where
        N: Into<String>,
        E: Into<ColumnExpression>,
    {
        Project { keeps_input: true, ..Project::new(columns) }
    }

    /// The output has exactly these columns, each named by its alias or its column.
    ///
    /// # Errors
    /// A user error for an expression that has no name.
    pub fn select<E: Into<ColumnExpression>>(columns: impl IntoIterator<Item = E>) -> Result<Self> {
        let named = columns.into_iter().map(|expr| {
            let expr: ColumnExpression = expr.into();
            let name = expr.output_name().ok_or_else(|| {
                Error::user(format!("expression `{}` needs a name (`... as name`)", expr.text()))
            })?;
            Ok((name, expr))
        });
        Ok(Project { columns: named.collect::<Result<_>>()?, keeps_input: false, declared: None })
    }

    /// The output has the columns of `schema` by name, in its order, and its nullability: brings
    /// the streams of a union into one schema.
    pub fn to_schema(schema: SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|field| (field.name().clone(), column(field.name())));
        Project { declared: Some(schema.clone()), ..Project::new(columns.collect::<Vec<_>>()) }
    }

    fn plan(&self, input: &SchemaRef) -> Result<Plan> {
        let mut columns: Vec<(String, PlannedExpression)> = Vec::new();
        if self.keeps_input {
            for field in input.fields() {
                let name = field.name();
                let given = self.columns.iter().find(|(given, _)| given == name);
                let planned = match given {
                    Some((_, expr)) => expr.plan(input)?,
                    None => column(name).plan(input)?,
                };
                columns.push((name.clone(), planned));
            }
        }
        for (name, expr) in &self.columns {
            if !(self.keeps_input && input.index_of(name).is_ok()) {
                columns.push((name.clone(), expr.plan(input)?));
            }
        }
        // The column that a retract edge needs follows its rows unasked.
        if let Ok(op) = input.index_of(OP_COLUMN)
            && !columns.iter().any(|(_, planned)| planned.column() == Some(op))
        {
            columns.push((OP_COLUMN.to_string(), column(OP_COLUMN).plan(input)?));
        }
        Plan::new(input, columns, self.declared.as_ref())
    }

    fn check_names(&self) -> Result<()> {
        if self.columns.is_empty() {
            return Err(Error::user("a projection needs at least one column"));
        }
        for (index, (name, _)) in self.columns.iter().enumerate() {
            if name.is_empty() {
                return Err(Error::user("a column needs a name"));
            }
            if name.starts_with(RESERVED_PREFIX) {
                return Err(Error::user(format!(
                    "column {name:?}: names that begin with {RESERVED_PREFIX} are the engine's"
                )));
            }
            if self.columns[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::user(format!("column {name:?} is made twice")));
            }
        }
        Ok(())
    }
}

impl OperatorFactory for Project {
    fn name(&self) -> String {
        if self.keeps_input { "with column".to_string() } else { "project".to_string() }
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(ProjectOperator { project: self.clone(), plan: None }))
    }

    fn takes(&self, _input: usize, _mode: &Mode) -> bool {
        true
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        if self.declared.is_none() {
            self.check_names()?;
        }
        let input = single_input(inputs)?;
        let plan = self.plan(&input.schema)?;
        let mode = match &input.mode {
            Mode::Append => Mode::Append,
            Mode::Retract => Mode::Retract,
            Mode::Upsert(key) => Mode::Upsert(
                key.iter()
                    .map(|name| {
                        let passed = input.schema.index_of(name).ok().and_then(|index| plan.passes(index));
                        passed.map(|index| plan.schema.field(index).name().clone()).ok_or_else(|| {
                            Error::user(format!(
                                "the stream is an upsert by {}; the projection must pass {name:?} on",
                                key.join(", ")
                            ))
                        })
                    })
                    .collect::<Result<_>>()?,
            ),
        };
        let time = input.time.and_then(|index| plan.passes(index));
        Ok(vec![EdgeSchema { schema: plan.schema, time, mode, watermarks: input.watermarks }])
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }

    fn describe(&self) -> String {
        let columns: Vec<_> =
            self.columns.iter().map(|(name, expr)| format!("{name} = {}", expr.text())).collect();
        format!("{} {}", self.name(), columns.join(", "))
    }
}

/// The column of exactly this name.
fn column(name: &str) -> ColumnExpression {
    ColumnExpression::from(format!("\"{}\"", name.replace('"', "\"\"")))
}

/// A projection that is planned for one input schema.
struct Plan {
    input: SchemaRef,
    columns: Vec<PlannedExpression>,
    schema: SchemaRef,
    is_identity: bool,
}

impl Plan {
    fn new(
        input: &SchemaRef,
        columns: Vec<(String, PlannedExpression)>,
        declared: Option<&SchemaRef>,
    ) -> Result<Plan> {
        let fields = columns.iter().map(|(name, planned)| match planned.column() {
            // Metadata stays with a column that is passed on.
            Some(index) => input.field(index).clone().with_name(name),
            None => Field::new(name, planned.data_type().clone(), planned.is_nullable()),
        });
        let schema = match declared {
            Some(declared) => declared.clone(),
            None => Arc::new(Schema::new(fields.collect::<Vec<_>>())),
        };
        let columns: Vec<_> = columns.into_iter().map(|(_, planned)| planned).collect();
        let is_identity = schema.fields() == input.fields()
            && columns.iter().enumerate().all(|(index, planned)| planned.column() == Some(index));
        let schema = if is_identity { input.clone() } else { schema };
        Ok(Plan { input: input.clone(), columns, schema, is_identity })
    }

    /// Where input column `index` is passed on to; the first place when there are several.
    fn passes(&self, index: usize) -> Option<usize> {
        self.columns.iter().position(|planned| planned.column() == Some(index))
    }

    fn apply(&self, batch: Batch) -> Result<Batch> {
        if self.is_identity {
            return Ok(batch);
        }
        let records = batch.records();
        let columns =
            self.columns.iter().map(|planned| planned.evaluate(records)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(records.num_rows()));
        let made = Batch::new(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?);
        Ok(match batch.key_hashes() {
            Some(hashes) => made.with_key_hashes(hashes.clone()),
            None => made,
        })
    }
}

struct ProjectOperator {
    project: Project,
    plan: Option<Plan>,
}

impl Operator for ProjectOperator {
    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let schema = batch.schema();
        let plan = match &self.plan {
            Some(plan) if Arc::ptr_eq(&plan.input, &schema) || plan.input == schema => plan,
            _ => self.plan.insert(self.project.plan(&schema)?),
        };
        cx.emit(plan.apply(batch)?);
        Ok(Step::Done)
    }
}
