//! Makes the operators of the steps.

use std::sync::Arc;

use thalweg_connectors::deduplicate::{Deduplicate, ReadRecordIds};
use thalweg_engine::graph::Stream;
use thalweg_engine::operator::{OperatorFactory, check_mode};
use thalweg_engine::record::EdgeSchema;
use thalweg_operators::expression::{ColumnExpression, did_you_mean};
use thalweg_operators::filter::Filter;
use thalweg_operators::project::Project;
use thalweg_operators::union::Union;
use thalweg_operators::union_schema;

use crate::config::{Checker, Place, Placed, Text};

use super::build::edge_of;
use super::build_aggregation::build_aggregation;
use super::build_event_time::with_event_time;
use super::build_tensor::build_tensor;
use super::build_transform::{build_embed, build_near_duplicates, build_nearest};
use super::spec::{ComputedSpec, EventTimeSpec, Named, StepKind, StepSpec};

/// The column that [`ReadRecordIds`] makes and copies are gathered by.
const RECORD_ID_PRODUCER: &str = "id_producer";

/// Makes one step; `None` after a mistake.
pub(super) fn build_step(checker: &Checker<'_>, step: &Named<StepSpec>, inputs: &[Stream]) -> Option<Stream> {
    let input = inputs.first()?;
    let edge = edge_of(input)?;
    match &step.spec.kind {
        StepKind::Filter { condition } => {
            let filter = Filter::new(ColumnExpression::from(condition.value.as_str()));
            if let Err(error) = filter.outputs(std::slice::from_ref(&edge)) {
                checker.mistake_in(condition, error);
                return None;
            }
            apply(checker, &condition.place, input, &edge, filter)
        }
        StepKind::Project { columns } => {
            check_columns(checker, columns, &edge)?;
            apply(checker, &step.place, input, &edge, Project::new(pairs(columns)))
        }
        StepKind::WithColumns { columns } => {
            check_columns(checker, columns, &edge)?;
            apply(checker, &step.place, input, &edge, Project::with_columns(pairs(columns)))
        }
        StepKind::Union => build_union(checker, step, inputs),
        StepKind::Watermarks(spec) => build_watermarks(checker, step, spec, input),
        StepKind::Window { .. } | StepKind::Aggregate { .. } => {
            build_aggregation(checker, step, input, &edge)
        }
        StepKind::Embed(spec) => build_embed(checker, step, spec, input, &edge),
        StepKind::Nearest(spec) => build_nearest(checker, step, spec, input, &edge),
        StepKind::Tensor(spec) => build_tensor(checker, step, spec, input, &edge),
        StepKind::NearDuplicates(spec) => build_near_duplicates(checker, step, spec, input, &edge),
        StepKind::Deduplicate { id } => build_deduplicate(checker, step, id, input, &edge),
    }
}

fn build_watermarks(
    checker: &Checker<'_>,
    step: &Named<StepSpec>,
    spec: &EventTimeSpec,
    input: &Stream,
) -> Option<Stream> {
    if input.is_source() {
        let place = step.spec.inputs.first().map_or(&step.place, |input| &input.place);
        checker.mistake(
            place,
            "this is a source: give it an `event_time`, and each split gets its own watermark",
        );
        return None;
    }
    with_event_time(checker, input.clone(), spec)
}

fn build_deduplicate(
    checker: &Checker<'_>,
    step: &Named<StepSpec>,
    id: &Placed<Text>,
    input: &Stream,
    edge: &EdgeSchema,
) -> Option<Stream> {
    column_index(checker, id, edge)?;
    let ids = apply(checker, &id.place, input, edge, ReadRecordIds::new(id.value.as_str()))?;
    let ids = ids.uid(&format!("{}.ids", step.name));
    let keyed = ids.key_by(&[RECORD_ID_PRODUCER]);
    let _ = keyed.stream().clone().uid(&format!("{}.key", step.name));
    Some(keyed.apply(Deduplicate::default()))
}

/// Applies an operator that agrees with its input; reports at `place` why one does not.
pub(super) fn apply(
    checker: &Checker<'_>,
    place: &Place,
    input: &Stream,
    edge: &EdgeSchema,
    factory: impl OperatorFactory + 'static,
) -> Option<Stream> {
    agrees(checker, place, &factory, edge)?;
    Some(input.apply_dyn(Arc::new(factory), None))
}

/// Whether an operator takes what flows into it; reports at `place` why not.
pub(super) fn agrees(
    checker: &Checker<'_>,
    place: &Place,
    factory: &dyn OperatorFactory,
    edge: &EdgeSchema,
) -> Option<()> {
    let checked =
        check_mode(factory, 0, &edge.mode).and_then(|()| factory.outputs(std::slice::from_ref(edge)));
    match checked {
        Ok(_) => Some(()),
        Err(error) => {
            checker.mistake(place, error.to_string());
            None
        }
    }
}

fn build_union(checker: &Checker<'_>, step: &Named<StepSpec>, inputs: &[Stream]) -> Option<Stream> {
    let edges: Vec<EdgeSchema> = inputs.iter().map(edge_of).collect::<Option<_>>()?;
    for (index, edge) in edges.iter().enumerate().skip(1) {
        // Each against the first, so that the mistake stands at the input that is wrong.
        if let Err(error) = union_schema(&[&edges[0], edge]) {
            let text = error.to_string();
            let place = step.spec.inputs.get(index).map_or(&step.place, |input| &input.place);
            checker.mistake(place, text.replace("stream 2: ", "").replace("first stream", "first input"));
        }
    }
    let target = union_schema(&edges.iter().collect::<Vec<_>>()).ok()?;
    let aligned: Vec<Stream> = inputs
        .iter()
        .zip(&edges)
        .enumerate()
        .map(|(index, (input, edge))| match edge.schema == target {
            true => input.clone(),
            false => {
                let uid = format!("{}.input-{}", step.name, index + 1);
                input.apply(Project::to_schema(target.clone())).uid(&uid)
            }
        })
        .collect();
    let (first, others) = aligned.split_first()?;
    Some(first.union_apply(&others.iter().collect::<Vec<_>>(), Arc::new(Union)))
}

/// Plans each column alone, so that each mistake has its own line.
fn check_columns(checker: &Checker<'_>, columns: &[ComputedSpec], edge: &EdgeSchema) -> Option<()> {
    let before = checker.count();
    for column in columns {
        if let Err(error) = ColumnExpression::from(column.sql.value.as_str()).plan(&edge.schema) {
            checker.mistake_in(&column.sql, error);
        }
    }
    (checker.count() == before).then_some(())
}

fn pairs(columns: &[ComputedSpec]) -> Vec<(String, ColumnExpression)> {
    columns
        .iter()
        .map(|column| (column.name.reveal().clone(), ColumnExpression::from(column.sql.value.as_str())))
        .collect()
}

/// The index of a column; a mistake, with the one that was probably meant, when there is none.
pub(super) fn column_index(checker: &Checker<'_>, column: &Placed<Text>, edge: &EdgeSchema) -> Option<usize> {
    let names: Vec<&str> = edge.schema.fields().iter().map(|field| field.name().as_str()).collect();
    let found = names.iter().position(|name| *name == column.value.as_str());
    if found.is_none() {
        let near = did_you_mean(column.value.as_str(), names.iter().copied());
        let hint = near
            .filter(|_| !column.value.is_foreign())
            .map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
        checker.mistake(
            &column.place,
            format!("there is no column `{}`{hint}; the columns are {}", column.value, names.join(", ")),
        );
    }
    found
}
