//! What a job says about an aggregate: function, argument, name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use thalweg_engine::graph::Expression;
use thalweg_engine::{Error, Result};

/// A built-in aggregate function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// `count(*)` counts rows, `count(x)` the rows whose `x` is not null.
    Count,
    /// The sum; of signed integers as `Int64`, of unsigned ones as `UInt64`, of floats as `Float64`.
    Sum,
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
    /// The mean, as `Float64`.
    Mean,
    /// The value of the row with the lowest event time; among equals the smallest value.
    First,
    /// The value of the row with the highest event time; among equals the largest value.
    Last,
}

/// Every function with its names; the first one is its own.
const NAMES: [(AggregateFunction, &[&str]); 7] = [
    (AggregateFunction::Count, &["count"]),
    (AggregateFunction::Sum, &["sum"]),
    (AggregateFunction::Min, &["min"]),
    (AggregateFunction::Max, &["max"]),
    (AggregateFunction::Mean, &["mean", "avg"]),
    (AggregateFunction::First, &["first", "first_value"]),
    (AggregateFunction::Last, &["last", "last_value"]),
];

impl AggregateFunction {
    /// The function's name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(function, _)| *function == self).map_or("", |(_, names)| names[0])
    }

    /// All names that [`AggregateFunction::from_str`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().flat_map(|(_, names)| names.iter().copied())
    }
}

impl FromStr for AggregateFunction {
    type Err = Error;

    /// The function of a SQL name, in any case.
    fn from_str(name: &str) -> Result<Self> {
        let wanted = name.trim().to_ascii_lowercase();
        let found = NAMES.iter().find(|(_, names)| names.contains(&wanted.as_str()));
        found.map(|(function, _)| *function).ok_or_else(|| {
            let known: Vec<_> = AggregateFunction::names().collect();
            Error::user(format!("there is no aggregate {name:?}; known are {}", known.join(", ")))
        })
    }
}

/// What an aggregate is over.
#[derive(Clone)]
pub enum Argument {
    /// Rows: `count(*)`.
    Rows,
    /// A column, by name.
    Column(String),
    /// What an expression gives.
    Expression(Arc<dyn Expression>),
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Argument::Rows => f.write_str("*"),
            Argument::Column(name) => f.write_str(name),
            Argument::Expression(expression) => f.write_str(&expression.describe()),
        }
    }
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An aggregate of a job: `sum(dep_delay) as delay`.
///
/// ```
/// use thalweg_operators::aggregate::{AggregateFunction, AggregateSpec};
///
/// let mean = AggregateSpec::mean("dep_delay").alias("delay");
/// assert_eq!((mean.name(), mean.to_string()), ("delay".into(), "mean(dep_delay)".into()));
/// let parsed: AggregateSpec = "AVG(dep_delay)".parse()?;
/// assert_eq!(parsed.function, AggregateFunction::Mean);
/// assert_eq!("count(*)".parse::<AggregateSpec>()?.name(), "count(*)");
/// # Ok::<(), thalweg_engine::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AggregateSpec {
    /// Which function.
    pub function: AggregateFunction,
    /// Over what.
    pub argument: Argument,
    /// The name of the output column; without one it is the call's text.
    pub alias: Option<String>,
}

impl AggregateSpec {
    /// `function(argument)`.
    pub fn new(function: AggregateFunction, argument: Argument) -> Self {
        AggregateSpec { function, argument, alias: None }
    }

    /// `function(column)`.
    pub fn over(function: AggregateFunction, column: &str) -> Self {
        Self::new(function, Argument::Column(column.to_string()))
    }

    /// `count(*)`.
    pub fn count() -> Self {
        Self::new(AggregateFunction::Count, Argument::Rows)
    }

    /// `sum(column)`.
    pub fn sum(column: &str) -> Self {
        Self::over(AggregateFunction::Sum, column)
    }

    /// `min(column)`.
    pub fn min(column: &str) -> Self {
        Self::over(AggregateFunction::Min, column)
    }

    /// `max(column)`.
    pub fn max(column: &str) -> Self {
        Self::over(AggregateFunction::Max, column)
    }

    /// `mean(column)`.
    pub fn mean(column: &str) -> Self {
        Self::over(AggregateFunction::Mean, column)
    }

    /// `first(column)`, by event time.
    pub fn first(column: &str) -> Self {
        Self::over(AggregateFunction::First, column)
    }

    /// `last(column)`, by event time.
    pub fn last(column: &str) -> Self {
        Self::over(AggregateFunction::Last, column)
    }

    /// Names the output column.
    #[must_use]
    pub fn alias(mut self, name: &str) -> Self {
        self.alias = Some(name.to_string());
        self
    }

    /// The output column's name.
    pub fn name(&self) -> String {
        self.alias.clone().unwrap_or_else(|| self.to_string())
    }
}

impl fmt::Display for AggregateSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.function.name(), self.argument)
    }
}

impl FromStr for AggregateSpec {
    type Err = Error;

    /// Reads `function(column)` or `count(*)`; `count()` too.
    fn from_str(text: &str) -> Result<Self> {
        let call = text.trim().strip_suffix(')').and_then(|text| text.split_once('('));
        let (name, argument) =
            call.ok_or_else(|| Error::user(format!("{text:?} is no aggregate: expected function(column)")))?;
        let function: AggregateFunction = name.parse()?;
        let argument = match argument.trim() {
            "*" | "" => Argument::Rows,
            column => Argument::Column(column.trim_matches('"').to_string()),
        };
        Ok(AggregateSpec::new(function, argument))
    }
}

/// `count(*)`.
pub fn count() -> AggregateSpec {
    AggregateSpec::count()
}

/// `sum(column)`.
pub fn sum(column: &str) -> AggregateSpec {
    AggregateSpec::sum(column)
}

/// `min(column)`.
pub fn min(column: &str) -> AggregateSpec {
    AggregateSpec::min(column)
}

/// `max(column)`.
pub fn max(column: &str) -> AggregateSpec {
    AggregateSpec::max(column)
}

/// `mean(column)`.
pub fn mean(column: &str) -> AggregateSpec {
    AggregateSpec::mean(column)
}

/// `first(column)`, by event time.
pub fn first(column: &str) -> AggregateSpec {
    AggregateSpec::first(column)
}

/// `last(column)`, by event time.
pub fn last(column: &str) -> AggregateSpec {
    AggregateSpec::last(column)
}
