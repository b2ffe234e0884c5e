//! Gives streams their event time and their watermarks.

use std::sync::Arc;

use thalweg_engine::graph::Stream;
use thalweg_engine::record::{EdgeSchema, time_type};
use thalweg_engine::time::WatermarkStrategy;
use thalweg_operators::expression::{ColumnExpression, punctuated};

use crate::config::{Checker, Placed, Text};

use super::build::edge_of;
use super::build_step::column_index;
use super::spec::{EventTimeSpec, WatermarksSpec};

/// What an event time must be.
const EXPECTED: &str = "event time is a `timestamp`; an `expression` can make one, such as \
                        `to_timestamp_millis(ts)`";

/// The stream with the event time that is asked for; `None` after a mistake.
pub(super) fn with_event_time(checker: &Checker<'_>, stream: Stream, spec: &EventTimeSpec) -> Option<Stream> {
    let edge = edge_of(&stream)?;
    let strategy = strategy(checker, spec, &edge)?;
    let Some(sql) = &spec.expression else {
        let index = column_index(checker, &spec.column, &edge)?;
        let data_type = edge.schema.field(index).data_type();
        if *data_type != time_type() {
            let message = format!("column `{}` is {data_type}; {EXPECTED}", spec.column.value);
            checker.mistake(&spec.place, message);
            return None;
        }
        return Some(stream.watermarks(spec.column.value.as_str(), strategy));
    };
    let column = spec.column.value.as_str();
    if edge.schema.index_of(column).is_ok() {
        let message = format!("column `{}` is there already; give another `column`", spec.column.value);
        checker.mistake(&spec.place, message);
        return None;
    }
    let expression = timestamp(checker, sql, &edge)?;
    Some(stream.event_time(column, Arc::new(expression), strategy))
}

fn strategy(checker: &Checker<'_>, spec: &EventTimeSpec, edge: &EdgeSchema) -> Option<WatermarkStrategy> {
    let mut strategy = match &spec.watermarks {
        WatermarksSpec::OutOfOrder(bound) => WatermarkStrategy::bounded_out_of_order(*bound),
        WatermarksSpec::Punctuated(sql) => punctuated(timestamp(checker, sql, edge)?),
    };
    strategy.idle_after = spec.idle_after;
    strategy.max_ahead = spec.max_ahead;
    Some(strategy)
}

/// An expression that makes timestamps of the stream's columns.
fn timestamp(checker: &Checker<'_>, sql: &Placed<Text>, edge: &EdgeSchema) -> Option<ColumnExpression> {
    let expression = ColumnExpression::from(sql.value.as_str());
    match expression.plan(&edge.schema) {
        Ok(planned) if *planned.data_type() == time_type() => Some(expression),
        Ok(planned) => {
            let data_type = planned.data_type();
            checker.mistake(&sql.place, format!("expression `{}` is {data_type}; {EXPECTED}", sql.value));
            None
        }
        Err(error) => {
            checker.mistake_in(sql, error);
            None
        }
    }
}
