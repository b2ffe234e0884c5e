//! Changelogs that would lose their order or overwrite each other are refused, each by its node.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use crate::Result;
use crate::graph::{Environment, Expression, Graph, Partitioner, Plan, Stream};
use crate::operator::{Operator, OperatorFactory};
use crate::record::{EdgeSchema, Mode, OP_COLUMN, time_type};
use crate::source::{Enumerator, ReaderOpenContext, Source, SourceReader};
use crate::state::StateIdentity;
use crate::time::{HOUR, OnAhead, WatermarkStrategy};

fn only_planned<T>() -> Result<T> {
    Err(crate::Error::internal("only planned"))
}

/// Rows of a mode.
struct Changes(Mode);

impl Source for Changes {
    fn name(&self) -> String {
        "changes".into()
    }
    fn output(&self) -> Result<EdgeSchema> {
        let column = |name| Field::new(name, DataType::Int64, false);
        let op = Field::new(OP_COLUMN, DataType::Int8, false);
        let schema = Schema::new(vec![column("a"), column("b"), column("value"), op]);
        Ok(EdgeSchema::new(Arc::new(schema)).with_mode(self.0.clone()))
    }
    fn identity(&self) -> StateIdentity {
        StateIdentity::of("changes")
    }
    fn enumerator(&self, _: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        only_planned()
    }
    fn reader(&self, _: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        only_planned()
    }
}

/// Passes on what comes, of any mode.
struct Pass;

impl OperatorFactory for Pass {
    fn name(&self) -> String {
        "pass".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        only_planned()
    }
    fn takes(&self, _: usize, _: &Mode) -> bool {
        true
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs[..1].to_vec())
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

fn upsert() -> Mode {
    Mode::Upsert(vec!["a".into(), "b".into()])
}

/// What is said of a job over changes of `mode` with four tasks, a line each.
fn said(mode: Mode, job: impl FnOnce(&Environment, Stream) -> Stream) -> String {
    let environment = Environment::new();
    let changes = environment.source(Changes(mode));
    let _ = job(&environment, changes).uid("last");
    let graph: Graph = environment.build().unwrap();
    let mistakes = graph.changelog_mistakes(4);
    assert_eq!(Plan::new(&graph, 4, 128).is_err(), !mistakes.is_empty());
    assert!(mistakes.iter().all(|mistake| graph.nodes[mistake.node.0].uid.to_string() == "last"));
    mistakes.into_iter().map(|mistake| mistake.message).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_changelog_is_not_dealt_in_turn_over_several_tasks() {
    for mode in [upsert(), Mode::Retract] {
        let other_parallelism = said(mode.clone(), |_, changes| changes.apply(Pass).parallelism(3));
        assert!(other_parallelism.contains("from 4 to 3 tasks"), "{other_parallelism}");
        let rebalanced =
            said(mode.clone(), |_, changes| changes.apply_dyn(Arc::new(Pass), Some(Partitioner::Rebalance)));
        assert!(rebalanced.contains("dealt in turn"), "{rebalanced}");
        assert_eq!(said(mode.clone(), |_, changes| changes.apply(Pass)), "");
        assert_eq!(
            said(mode.clone(), |_, changes| changes.apply(Pass).parallelism(1)),
            "",
            "one task has all"
        );
        let to_all = |_: &Environment, changes: Stream| {
            changes.apply_dyn(Arc::new(Pass), Some(Partitioner::Broadcast))
        };
        assert_eq!(said(mode, to_all), "");
    }
    assert_eq!(said(Mode::Append, |_, rows| rows.apply(Pass).parallelism(3)), "");
}

#[test]
fn a_changelog_is_keyed_by_columns_of_its_own_key_only() {
    let keyed = |columns: &'static [&'static str]| {
        move |_: &Environment, changes: Stream| changes.key_by(columns).apply(Pass)
    };
    for columns in [&["value"][..], &["a", "value"]] {
        let other = said(upsert(), keyed(columns));
        assert!(other.contains("is upsert by a, b, and it is keyed by value"), "{other}");
    }
    for columns in [&["a"][..], &["b", "a"]] {
        assert_eq!(said(upsert(), keyed(columns)), "");
    }
    assert_eq!(said(Mode::Retract, keyed(&["value"])), "", "what is taken back has its old value");
    assert!(said(Mode::Retract, keyed(&["__op"])).contains("keyed by __op"));
    let unknown = said(upsert(), |_, changes| {
        let behind = changes.key_by(&["a"]).stream().apply(Pass);
        behind.apply_dyn(Arc::new(Pass), Some(Partitioner::Hash))
    });
    assert!(unknown.contains("key it right before"), "{unknown}");
}

#[test]
fn upserts_whose_keys_may_be_the_same_are_not_united() {
    let united = |other: Mode| {
        move |environment: &Environment, changes: Stream| {
            changes.union_apply(&[&environment.source(Changes(other)).uid("other")], Arc::new(Pass))
        }
    };
    let upserts = said(upsert(), united(upsert()));
    assert!(upserts.contains("a row of one would replace a row of the other"), "{upserts}");
    let mixed = said(Mode::Append, united(Mode::Retract));
    assert!(mixed.contains("unites a stream that is append with one that is retract"), "{mixed}");
    assert_eq!(said(Mode::Retract, united(Mode::Retract)), "");
    assert_eq!(said(Mode::Append, united(Mode::Append)), "");
}

/// A time for each row.
struct SomeTime;

impl Expression for SomeTime {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(time_type())
    }
    fn evaluate(&self, _: &RecordBatch) -> Result<ArrayRef> {
        only_planned()
    }
    fn describe(&self) -> String {
        "some time".into()
    }
}

#[test]
fn no_row_of_a_changelog_is_left_out_or_set_back_for_its_time() {
    let built = |mode: Mode, behind: bool, guarded: bool| {
        let environment = Environment::new();
        let changes = environment.source(Changes(mode));
        let changes = if behind { changes.apply(Pass) } else { changes };
        let strategy = WatermarkStrategy::monotonous();
        let strategy = if guarded { strategy.max_ahead(HOUR, OnAhead::Drop) } else { strategy };
        let _ = changes.event_time("at", Arc::new(SomeTime), strategy);
        environment.build()
    };
    for behind in [false, true] {
        for mode in [upsert(), Mode::Retract] {
            assert!(built(mode.clone(), behind, false).is_ok());
            assert!(built(mode, behind, true).is_err(), "behind an operator: {behind}");
        }
        assert!(built(Mode::Append, behind, true).is_ok());
    }
}
