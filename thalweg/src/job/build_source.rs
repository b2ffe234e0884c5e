//! Makes the sources and their event time.

use std::sync::Arc;

use thalweg_engine::graph::{Environment, Stream};
use thalweg_engine::record::time_type;
use thalweg_engine::source::Source;
use thalweg_engine::time::WatermarkStrategy;
use thalweg_engine::{Error, Result};
use thalweg_operators::expression::ColumnExpression;

use crate::config::{Checker, Placed};

use super::build::edge_of;
use super::build_step::column_index;
use super::spec::{EventTimeSpec, Named, SourceKind, SourceSpec};

/// Makes one source; `None` after a mistake.
pub(super) fn build_source(
    checker: &Checker<'_>,
    environment: &Environment,
    named: &Named<SourceSpec>,
) -> Option<Stream> {
    let made = make(&named.spec).and_then(|source| source.output().map(|_| source));
    let source = match made {
        Ok(source) => source,
        Err(error) => {
            checker.mistake(&named.place, error.to_string());
            return None;
        }
    };
    let stream = environment.source_dyn(source);
    match &named.spec.event_time {
        Some(event_time) => with_event_time(checker, stream, event_time),
        None => Some(stream),
    }
}

fn make(spec: &SourceSpec) -> Result<Arc<dyn Source>> {
    match &spec.kind {
        SourceKind::Kafka(_) | SourceKind::File(_) | SourceKind::Generator(_) => {
            Err(Error::user("this kind of source is not there yet"))
        }
    }
}

fn with_event_time(checker: &Checker<'_>, stream: Stream, spec: &EventTimeSpec) -> Option<Stream> {
    let edge = edge_of(&stream)?;
    let mut strategy = WatermarkStrategy::bounded_out_of_order(spec.out_of_order);
    strategy.idle_after = spec.idle_after;
    let expected = "event time is a `timestamp`; an `expression` can make one, such as \
                    `to_timestamp_millis(ts)`";
    match &spec.expression {
        None => {
            let column = Placed { value: spec.column.clone(), place: spec.place.clone() };
            let index = column_index(checker, &column, &edge)?;
            let data_type = edge.schema.field(index).data_type();
            if *data_type != time_type() {
                checker.mistake(&spec.place, format!("column `{}` is {data_type}; {expected}", spec.column));
                return None;
            }
            Some(stream.watermarks(&spec.column, strategy))
        }
        Some(sql) => {
            if edge.schema.index_of(&spec.column).is_ok() {
                let message = format!("column `{}` is there already; give another `column`", spec.column);
                checker.mistake(&spec.place, message);
                return None;
            }
            let expression = ColumnExpression::from(sql.value.as_str());
            match expression.plan(&edge.schema) {
                Ok(planned) if *planned.data_type() == time_type() => {
                    Some(stream.event_time(&spec.column, Arc::new(expression), strategy))
                }
                Ok(planned) => {
                    checker.mistake(
                        &sql.place,
                        format!("expression `{}` is {}; {expected}", sql.value, planned.data_type()),
                    );
                    None
                }
                Err(error) => {
                    checker.mistake(&sql.place, error.to_string());
                    None
                }
            }
        }
    }
}
