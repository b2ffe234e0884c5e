//! Uids, the fingerprint, and what is fused.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::Result;
use crate::operator::{Operator, OperatorFactory};
use crate::record::{EdgeSchema, Mode};
use crate::source::{Enumerator, ReaderOpenContext, Source, SourceReader};

/// A source that is only planned.
struct Planned(Mode);

impl Source for Planned {
    fn name(&self) -> String {
        "planned".into()
    }
    fn output(&self) -> Result<EdgeSchema> {
        let schema = Schema::new(vec![Field::new("key", DataType::Int64, false)]);
        Ok(EdgeSchema::new(Arc::new(schema)).with_mode(self.0.clone()))
    }
    fn enumerator(&self, _: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        Err(crate::Error::internal("only planned"))
    }
    fn reader(&self, _: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        Err(crate::Error::internal("only planned"))
    }
}

/// An operator that is only planned; takes rows that are added.
struct Op(&'static str);

impl OperatorFactory for Op {
    fn name(&self) -> String {
        self.0.into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Err(crate::Error::internal("only planned"))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }
}

fn source(env: &Environment) -> Stream {
    env.source(Planned(Mode::Append))
}

fn uids(graph: &Graph) -> Vec<String> {
    graph.nodes.iter().map(|node| node.uid.to_string()).collect()
}

#[test]
fn derived_uids_stay_when_a_node_of_another_kind_is_added() {
    let build = |wider: bool| {
        let env = Environment::new();
        let mut stream = source(&env).apply(Op("map"));
        if wider {
            stream = stream.apply(Op("filter"));
        }
        stream.apply(Op("map")).apply(Op("sum")).uid("total");
        uids(&env.build().unwrap())
    };
    assert_eq!(build(false), ["planned-1", "map-1", "map-2", "total"]);
    assert_eq!(build(true), ["planned-1", "map-1", "filter-1", "map-2", "total"]);
}

#[test]
fn a_uid_that_is_used_twice_is_an_error_that_names_it() {
    let env = Environment::new();
    let stream = source(&env).uid("same");
    stream.apply(Op("map")).uid("same");
    let error = env.build().err().unwrap().to_string();
    assert!(error.contains("uid same is used twice"), "{error}");
}

#[test]
fn the_fingerprint_is_that_of_the_program_and_changes_with_it() {
    let build = |op, uid: &str| {
        let env = Environment::new();
        source(&env).apply(Op(op)).uid(uid);
        env.build().unwrap().fingerprint()
    };
    assert_eq!(build("map", "a"), build("map", "a"));
    assert_ne!(build("map", "a"), build("map", "b"));
    assert_ne!(build("map", "a"), build("filter", "a"));
}

#[test]
fn what_is_joined_by_one_forward_edge_is_one_chain() {
    let env = Environment::new();
    let mapped = source(&env).apply(Op("map"));
    let keyed = mapped.key_by(&["key"]).apply(Op("count"));
    keyed.apply(Op("narrow")).parallelism(1).apply(Op("sink"));
    let graph = env.build().unwrap();
    let plan = Plan::new(&graph, 4, 128).unwrap();
    let chains: Vec<Vec<&str>> = plan
        .chains
        .iter()
        .map(|chain| chain.nodes.iter().map(|node| graph.nodes[node.0].name.as_str()).collect())
        .collect();
    assert_eq!(chains, [vec!["planned", "map", "key by"], vec!["count"], vec!["narrow"], vec!["sink"]]);
    assert_eq!(plan.chains.iter().map(|chain| chain.parallelism).collect::<Vec<_>>(), [4, 4, 1, 4]);
    let partitioners: Vec<_> = plan.edges.iter().map(|planned| planned.edge.partitioner).collect();
    assert_eq!(partitioners, [Partitioner::Hash, Partitioner::Rebalance, Partitioner::Rebalance]);
    assert!(Plan::new(&graph, 129, 128).is_err(), "more tasks than key groups");
}

#[test]
fn rows_of_a_mode_that_an_operator_does_not_take_are_refused_by_name() {
    let env = Environment::new();
    env.source(Planned(Mode::Upsert(vec!["key".into()]))).apply(Op("map"));
    let error = env.build().err().unwrap().to_string();
    assert!(error.contains("map does not know what to do with a stream that is upsert by key"), "{error}");
}
