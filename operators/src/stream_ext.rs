//! What a [`Stream`] can do with expressions.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use thalweg_engine::graph::Stream;
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::time::WatermarkStrategy;
use thalweg_engine::{Error, Result};

use crate::expression::{ColumnExpression, did_you_mean};
use crate::filter::Filter;
use crate::project::Project;
use crate::union::Union;

/// Relational steps on a stream. Mistakes are reported when the job is built.
///
/// ```
/// use datafusion_expr::{col, lit};
/// use thalweg_engine::graph::Stream;
/// use thalweg_operators::StreamExt;
///
/// fn late(flights: &Stream) -> Stream {
///     flights
///         .filter("dep_delay > 60 and carrier = 'UA'")
///         .with_column("dep_delay_h", col("dep_delay") / lit(60))
///         .select(["carrier", "dep_delay_h", "upper(origin) as origin"])
/// }
/// ```
pub trait StreamExt {
    /// Keeps the rows for which `condition` is true; null counts as false.
    #[must_use]
    fn filter(&self, condition: impl Into<ColumnExpression>) -> Stream;

    /// Makes rows of exactly these columns.
    #[must_use]
    fn project<N: Into<String>, E: Into<ColumnExpression>>(
        &self,
        columns: impl IntoIterator<Item = (N, E)>,
    ) -> Stream;

    /// Makes rows of exactly these columns, each named by its alias (`... as name`) or its column.
    #[must_use]
    fn select<E: Into<ColumnExpression>>(&self, columns: impl IntoIterator<Item = E>) -> Stream;

    /// Adds a column, or replaces the one of that name in place.
    #[must_use]
    fn with_column(&self, name: &str, expression: impl Into<ColumnExpression>) -> Stream;

    /// Appends an event-time column that `expression` computes, and says how watermarks are made, at
    /// a source or behind an operator.
    #[must_use]
    fn event_time_from(
        &self,
        column: &str,
        expression: impl Into<ColumnExpression>,
        strategy: WatermarkStrategy,
    ) -> Stream;

    /// Makes one stream of this one and `others`. They must have the same columns by name and
    /// type; their order is made the first stream's.
    #[must_use]
    fn union(&self, others: &[&Stream]) -> Stream;
}

impl StreamExt for Stream {
    fn event_time_from(
        &self,
        column: &str,
        expression: impl Into<ColumnExpression>,
        strategy: WatermarkStrategy,
    ) -> Stream {
        self.clone().event_time(column, Arc::new(expression.into()), strategy)
    }

    fn filter(&self, condition: impl Into<ColumnExpression>) -> Stream {
        self.apply(Filter::new(condition))
    }

    fn project<N: Into<String>, E: Into<ColumnExpression>>(
        &self,
        columns: impl IntoIterator<Item = (N, E)>,
    ) -> Stream {
        self.apply(Project::new(columns))
    }

    fn select<E: Into<ColumnExpression>>(&self, columns: impl IntoIterator<Item = E>) -> Stream {
        match Project::select(columns) {
            Ok(project) => self.apply(project),
            Err(error) => {
                self.environment().mistake(&error);
                self.clone()
            }
        }
    }

    fn with_column(&self, name: &str, expression: impl Into<ColumnExpression>) -> Stream {
        self.apply(Project::with_columns([(name, expression.into())]))
    }

    fn union(&self, others: &[&Stream]) -> Stream {
        let mut streams = vec![self];
        streams.extend_from_slice(others);
        let edges: Option<Vec<_>> = streams.iter().map(|stream| stream.edge_schema()).collect();
        let Some(edges) = edges else {
            return self.clone();
        };
        let target = match union_schema(&edges) {
            Ok(target) => target,
            Err(error) => {
                self.environment().mistake(&error.context("union"));
                return self.clone();
            }
        };
        let aligned: Vec<Stream> = streams
            .iter()
            .zip(&edges)
            .map(|(stream, edge)| match edge.schema == target {
                true => (*stream).clone(),
                false => stream.apply(Project::to_schema(target.clone())),
            })
            .collect();
        let others: Vec<_> = aligned.iter().skip(1).collect();
        aligned[0].union_apply(&others, Arc::new(Union))
    }
}

/// The schema of a union: the first stream's columns in its order, nullable where any stream's
/// are. [`Project::to_schema`] brings a stream into it.
///
/// # Errors
/// A user error that names the stream (the first is 1) and each column that does not fit, or says
/// that the event-time column or the mode differs.
pub fn union_schema(edges: &[&EdgeSchema]) -> Result<SchemaRef> {
    let Some((first, others)) = edges.split_first() else {
        return Err(Error::user("a union needs a stream"));
    };
    let mistakes: Vec<String> = others
        .iter()
        .enumerate()
        .flat_map(|(index, other)| {
            let place = format!("stream {}", index + 2);
            differences(first, other).into_iter().map(move |difference| format!("{place}: {difference}"))
        })
        .collect();
    if !mistakes.is_empty() {
        return Err(Error::user(mistakes.join("; ")));
    }
    let fields = first.schema.fields().iter().map(|field| {
        let nullable = edges
            .iter()
            .any(|edge| edge.schema.field_with_name(field.name()).is_ok_and(|field| field.is_nullable()));
        field.as_ref().clone().with_nullable(nullable)
    });
    Ok(Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), first.schema.metadata().clone())))
}

fn differences(first: &EdgeSchema, other: &EdgeSchema) -> Vec<String> {
    let mut mistakes = Vec::new();
    for field in first.schema.fields() {
        match other.schema.field_with_name(field.name()) {
            Ok(found) if found.data_type() != field.data_type() => mistakes.push(format!(
                "column {:?} is {}, in the first stream it is {}",
                field.name(),
                found.data_type(),
                field.data_type()
            )),
            Ok(_) => {}
            Err(_) => {
                let unmatched = other.schema.fields().iter().map(|field| field.name().as_str());
                let unmatched = unmatched.filter(|name| first.schema.field_with_name(name).is_err());
                let hint = did_you_mean(field.name(), unmatched)
                    .map_or_else(String::new, |near| format!(" (it has {near:?})"));
                mistakes.push(format!("column {:?} is missing{hint}", field.name()));
            }
        }
    }
    for field in other.schema.fields() {
        if first.schema.field_with_name(field.name()).is_err() {
            mistakes.push(format!("column {:?} is not in the first stream", field.name()));
        }
    }
    let time_of = |edge: &EdgeSchema| {
        edge.time.map_or_else(|| "none".to_string(), |index| edge.schema.field(index).name().clone())
    };
    if mistakes.is_empty() && time_of(first) != time_of(other) {
        mistakes.push(format!(
            "the event-time column is {}, in the first stream it is {}",
            time_of(other),
            time_of(first)
        ));
    }
    if first.mode != other.mode {
        mistakes.push(format!("the mode is {}, in the first stream it is {}", other.mode, first.mode));
    }
    mistakes
}
