//! All aggregates of an operator, bound to the schema of its input.

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field};
use thalweg_engine::record::{EdgeSchema, time_values};
use thalweg_engine::state::columnar::{ColumnarState, Rows, WordKind};
use thalweg_engine::state::{StateIdentity, type_word};
use thalweg_engine::{Context, Error, Result};

use super::count::Count;
use super::extreme::{Extreme, ExtremeBytes, Order};
use super::mean::Mean;
use super::spec::{AggregateFunction, AggregateSpec, Argument};
use super::sum::Sum;

/// The rows of a batch, as an aggregate sees them.
pub(super) struct Input<'a> {
    /// The slot of each row.
    pub(super) slots: &'a [u32],
    /// The argument's column; none for `count(*)`.
    pub(super) values: Option<&'a ArrayRef>,
    /// The event times, when the function orders by them.
    pub(super) times: Option<&'a TimestampMicrosecondArray>,
}

impl<'a> Input<'a> {
    pub(super) fn values(&self) -> Result<&'a ArrayRef> {
        self.values.ok_or_else(|| Error::internal("an aggregate over values got none"))
    }
}

/// One aggregate over one type. `at` is the place of its first word in a state.
pub(super) trait Aggregate: Send {
    /// The words of a state; all zero before the first row.
    fn words(&self) -> Vec<WordKind>;
    fn output_type(&self) -> DataType;
    fn update(&self, rows: &mut Rows<'_>, at: usize, input: &Input<'_>) -> Result<()>;
    fn emit(&self, rows: &Rows<'_>, at: usize, slots: &[u32]) -> Result<ArrayRef>;
}

struct Bound {
    spec: AggregateSpec,
    aggregate: Box<dyn Aggregate>,
    column: Option<usize>,
    at: usize,
    text: String,
}

/// All aggregates of an operator, bound to the schema of its input.
pub struct AggregateSet {
    bound: Vec<Bound>,
    words: Vec<WordKind>,
    time: Option<usize>,
}

impl AggregateSet {
    /// Binds aggregates to an input. Their words in a state begin at `first_word`.
    ///
    /// # Errors
    /// A user error that names the aggregate and what does not fit: a column that is missing or of
    /// a type that the function does not take, no event time to order by, two columns of one name.
    pub fn bind(specs: &[AggregateSpec], input: &EdgeSchema, first_word: usize) -> Result<AggregateSet> {
        let mut set = AggregateSet { bound: Vec::new(), words: Vec::new(), time: input.time };
        for spec in specs {
            let name = spec.name();
            if set.bound.iter().any(|bound| bound.spec.name() == name) {
                return Err(Error::user(format!("two aggregates are called {name:?}; give one an alias")));
            }
            let (column, data_type) = argument_type(spec, input).context(|| spec.to_string())?;
            let aggregate = bind(spec.function, data_type.as_ref(), input).context(|| spec.to_string())?;
            let at = first_word + set.words.len();
            set.words.extend(aggregate.words());
            let text = format!("{spec}: {data_type:?}");
            set.bound.push(Bound { spec: spec.clone(), aggregate, column, at, text });
        }
        Ok(set)
    }

    /// The output columns.
    pub fn fields(&self) -> Vec<Field> {
        let field = |bound: &Bound| {
            let nullable = bound.spec.function != AggregateFunction::Count;
            Field::new(bound.spec.name(), bound.aggregate.output_type(), nullable)
        };
        self.bound.iter().map(field).collect()
    }

    /// The words of a state.
    pub fn words(&self) -> &[WordKind] {
        &self.words
    }

    /// What the words mean, stable between processes. Aliases do not matter to the state.
    pub fn describe(&self) -> String {
        self.bound.iter().map(|bound| bound.text.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// `identity` with what these aggregates keep; `None` when they do not fit the input. Aliases do
    /// not matter to the state.
    pub fn identify(
        specs: &[AggregateSpec],
        input: &EdgeSchema,
        identity: StateIdentity,
    ) -> Option<StateIdentity> {
        let text = |spec: &AggregateSpec| {
            let (_, data_type) = argument_type(spec, input).ok()?;
            Some(
                data_type
                    .map_or(spec.to_string(), |data_type| format!("{spec} of {}", type_word(&data_type))),
            )
        };
        let texts: Option<Vec<_>> = specs.iter().map(text).collect();
        Some(identity.with("aggregates", texts?.join(", ")))
    }

    /// Adds the rows of a batch to the states of their slots.
    ///
    /// # Errors
    /// A user error of an argument's expression, or of a sum that overflows.
    pub fn update(&self, state: &mut ColumnarState, records: &RecordBatch, slots: &[u32]) -> Result<()> {
        let times = self.time.map(|column| time_values(records, column)).transpose()?;
        let mut rows = state.rows();
        for bound in &self.bound {
            let computed;
            let values = match (&bound.spec.argument, bound.column) {
                (Argument::Expression(expression), _) => {
                    computed = expression.evaluate(records).context(|| bound.spec.to_string())?;
                    Some(&computed)
                }
                (_, Some(column)) => Some(records.column(column)),
                _ => None,
            };
            let input = Input { slots, values, times };
            bound.aggregate.update(&mut rows, bound.at, &input).context(|| bound.spec.to_string())?;
        }
        Ok(())
    }

    /// The output columns of slots.
    ///
    /// # Errors
    /// An internal error when a state does not make a value.
    pub fn emit(&self, state: &mut ColumnarState, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let rows = state.rows();
        self.bound.iter().map(|bound| bound.aggregate.emit(&rows, bound.at, slots)).collect()
    }
}

fn argument_type(spec: &AggregateSpec, input: &EdgeSchema) -> Result<(Option<usize>, Option<DataType>)> {
    match &spec.argument {
        Argument::Rows if spec.function == AggregateFunction::Count => Ok((None, None)),
        Argument::Rows => Err(Error::user("only count takes *; name a column")),
        Argument::Column(name) => {
            let index = input.schema.index_of(name).map_err(|_| {
                let known: Vec<_> = input.schema.fields().iter().map(|f| f.name().as_str()).collect();
                Error::user(format!("there is no column {name:?} among {}", known.join(", ")))
            })?;
            Ok((Some(index), Some(input.schema.field(index).data_type().clone())))
        }
        Argument::Expression(expression) => Ok((None, Some(expression.data_type(&input.schema)?))),
    }
}

fn bind(
    function: AggregateFunction,
    data_type: Option<&DataType>,
    input: &EdgeSchema,
) -> Result<Box<dyn Aggregate>> {
    let Some(data_type) = data_type else {
        return Ok(Box::new(Count));
    };
    let by_time = matches!(function, AggregateFunction::First | AggregateFunction::Last);
    if by_time && input.time.is_none() {
        return Err(Error::user("it is by event time, and the stream has no event time"));
    }
    let order = match function {
        AggregateFunction::Max | AggregateFunction::Last => Order::Largest,
        _ => Order::Smallest,
    };
    Ok(match function {
        AggregateFunction::Count => Box::new(Count),
        AggregateFunction::Sum => Box::new(Sum::new(data_type)?),
        AggregateFunction::Mean => Box::new(Mean::new(data_type)?),
        _ if ExtremeBytes::takes(data_type) => Box::new(ExtremeBytes::new(data_type, order, by_time)),
        _ => Box::new(Extreme::new(data_type, order, by_time)?),
    })
}
