//! Makes windows and keyed aggregations: the key, the aggregates, the operator.

use thalweg_engine::graph::Stream;
use thalweg_engine::operator::OperatorFactory;
use thalweg_engine::record::EdgeSchema;
use thalweg_operators::aggregate::{AggregateFunction, AggregateSet, AggregateSpec, Argument};
use thalweg_operators::expression::{ColumnExpression, did_you_mean};
use thalweg_operators::keyed_aggregate::KeyedAggregate;
use thalweg_operators::window::Tumbling;

use crate::config::{Checker, Placed, Text};

use super::build_step::{agrees, column_index};
use super::spec::{self, Named, StepKind, StepSpec};

/// Makes a window or a keyed aggregation; `None` after a mistake.
pub(super) fn build_aggregation(
    checker: &Checker<'_>,
    step: &Named<StepSpec>,
    input: &Stream,
    edge: &EdgeSchema,
) -> Option<Stream> {
    let (key_by, aggregates) = match &step.spec.kind {
        StepKind::Window { key_by, aggregates, .. } | StepKind::Aggregate { key_by, aggregates } => {
            (key_by, aggregates)
        }
        _ => return None,
    };
    let key = read_key(checker, key_by, edge);
    let aggregates: Vec<_> =
        aggregates.iter().map(|aggregate| read_aggregate(checker, aggregate, edge)).collect();
    let aggregates: Option<Vec<_>> = aggregates.into_iter().collect();
    let (key, aggregates) = (key?, aggregates?);
    match &step.spec.kind {
        StepKind::Window { size, offset, allowed_lateness, .. } => {
            let window =
                Tumbling::new(&key, *size, aggregates).offset(*offset).allowed_lateness(*allowed_lateness);
            apply(checker, step, key_by, input, edge, window)
        }
        _ => apply(checker, step, key_by, input, edge, KeyedAggregate::new(&key, aggregates)),
    }
}

fn apply(
    checker: &Checker<'_>,
    step: &Named<StepSpec>,
    key_by: &[Placed<Text>],
    input: &Stream,
    edge: &EdgeSchema,
    factory: impl OperatorFactory + 'static,
) -> Option<Stream> {
    agrees(checker, &step.place, &factory, edge)?;
    let columns: Vec<&str> = key_by.iter().map(|column| column.value.as_str()).collect();
    let keyed = input.key_by(&columns);
    // Named after the step, so that it does not depend on what else the job has.
    let _ = keyed.stream().clone().uid(&format!("{}.key", step.name));
    Some(keyed.apply(factory))
}

fn read_key(checker: &Checker<'_>, key_by: &[Placed<Text>], edge: &EdgeSchema) -> Option<Vec<usize>> {
    let key: Vec<_> = key_by.iter().map(|column| column_index(checker, column, edge)).collect();
    key.into_iter().collect()
}

fn read_aggregate(
    checker: &Checker<'_>,
    spec: &spec::AggregateSpec,
    edge: &EdgeSchema,
) -> Option<AggregateSpec> {
    let Ok(function) = spec.function.as_str().parse::<AggregateFunction>() else {
        let near = did_you_mean(spec.function.as_str(), AggregateFunction::names());
        let hint = match near.filter(|_| !spec.function.is_foreign()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected {}", AggregateFunction::names().collect::<Vec<_>>().join(", ")),
        };
        checker.mistake(&spec.text.place, format!("there is no aggregate `{}`; {hint}", spec.function));
        return None;
    };
    let argument = match &spec.argument {
        None => Argument::Rows,
        Some(sql) => {
            let expression = ColumnExpression::from(sql.as_str());
            let planned = match expression.plan(&edge.schema) {
                Ok(planned) => planned,
                Err(error) => {
                    checker.mistake_in(&spec.text, error);
                    return None;
                }
            };
            // An alias is a name, not a column, though there may be one of that name.
            match planned.column() {
                Some(column) => Argument::Column(edge.schema.field(column).name().clone()),
                None => Argument::Expression(std::sync::Arc::new(expression)),
            }
        }
    };
    let aggregate = AggregateSpec::new(function, argument).alias(&spec.name);
    // Alone, so that a type that does not fit is reported on its own line.
    if let Err(error) = AggregateSet::bind(std::slice::from_ref(&aggregate), edge, 0) {
        checker.mistake_in(&spec.text, error);
        return None;
    }
    Some(aggregate)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::ProcessEnvironment;
    use crate::job::load_text;

    #[test]
    fn an_alias_in_an_aggregate_is_no_column_of_that_name() {
        let job = "
job: j
sources:
  rows: {kind: generator, rows: 1, columns: {user: {key: {cardinality: 9}}, a: {integer: {max: 9}}, tokens: {integer: {max: 9}}}}
steps:
  totals:
    kind: aggregate
    input: rows
    key_by: user
    aggregates: {computed: sum(a * 2 as tokens), renamed: sum(a as tokens), plain: sum(tokens)}
sinks:
  out: {kind: blackhole, input: totals}
";
        let loaded = load_text(job, "j.yaml", Path::new("/jobs"), &ProcessEnvironment).ok().unwrap();
        let totals = loaded.graph.nodes.iter().find(|node| node.uid.to_string() == "totals").unwrap();
        let thalweg_engine::graph::NodeKind::Operator { factory, .. } = &totals.kind else { panic!() };
        let described = factory.describe();
        for over in ["argument: a * 2 as tokens", "argument: a,", "argument: tokens,"] {
            assert!(described.contains(over), "{over:?} in {described}");
        }
    }
}
