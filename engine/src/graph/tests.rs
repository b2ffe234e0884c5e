//! Uids, the fingerprint, and what is fused.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::Result;
use crate::operator::{Operator, OperatorFactory};
use crate::record::{EdgeSchema, Mode};
use crate::source::{Enumerator, ReaderOpenContext, Source, SourceReader};
use crate::state::StateIdentity;

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
    fn identity(&self) -> StateIdentity {
        StateIdentity::of("planned")
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

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

/// An operator with state that is only planned.
struct Sum(&'static str);

impl OperatorFactory for Sum {
    fn name(&self) -> String {
        self.0.into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Err(crate::Error::internal("only planned"))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }
    fn identity(&self, inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        Some(StateIdentity::of(self.0).keyed_by(&inputs[0].schema, &[0]))
    }
    fn is_keyed(&self) -> bool {
        true
    }
}

fn source(env: &Environment) -> Stream {
    env.source(Planned(Mode::Append))
}

fn uids(graph: &Graph) -> Vec<String> {
    graph.nodes.iter().map(|node| node.uid.to_string()).collect()
}

#[test]
fn h7_derived_uids_are_of_kind_key_and_the_nearest_name_and_stateless_steps_do_not_count() {
    let build = |wider: bool| {
        let env = Environment::new();
        let mut stream = source(&env).uid("events").apply(Op("map"));
        if wider {
            stream = stream.apply(Op("map")).uid("named-map").apply(Op("filter"));
        }
        let counts = stream.key_by(&["key"]).apply(Sum("count"));
        counts.apply(Op("map")).key_by(&["key"]).apply(Sum("sum"));
        counts.uid("counts").apply(Sum("last")).apply(Op("sink"));
        env.build().unwrap()
    };
    let narrow = ["events", "map-1", "key-by-1", "counts", "map-2", "key-by-2"];
    let below = ["sum-by-key-of-counts", "last-by-key-of-counts", "sink-1"];
    assert_eq!(uids(&build(false)), [&narrow[..], &below[..]].concat());
    let wide = build(true);
    let states = |graph: &Graph| graph.states().iter().map(|state| state.uid.to_string()).collect::<Vec<_>>();
    assert_eq!(states(&build(false)), states(&wide), "putting stateless steps in renames nothing");
    // What versions without identities derived is kept for their checkpoints.
    let by_place: Vec<_> =
        wide.nodes.iter().map(|node| node.uid_by_place.as_ref().map(Uid::as_str)).collect();
    let known = [None, Some("map-1"), None, Some("filter-1"), Some("key-by-1"), None, Some("map-3")];
    assert_eq!(by_place[..7], known);
}

#[test]
fn h7_two_operators_with_state_that_would_have_one_uid_must_be_named() {
    let env = Environment::new();
    let events = source(&env).uid("events");
    events.key_by(&["key"]).apply(Sum("sum"));
    events.key_by(&["key"]).apply(Sum("sum"));
    let error = env.build().err().unwrap().to_string();
    assert!(error.contains("would both be called sum-by-key-of-events"), "{error}");
    assert!(error.contains("give one of them a name"), "{error}");
    // Stateless ones need no name, and an unnamed source has only its kind.
    let env = Environment::new();
    let stream = source(&env).apply(Op("map"));
    stream.apply(Op("map"));
    assert_eq!(uids(&env.build().unwrap()), ["planned", "map-1", "map-2"]);
    source(&env);
    assert!(env.build().err().unwrap().to_string().contains("would both be called planned"));
}

#[test]
fn h7_a_long_derived_uid_is_cut_and_still_its_own() {
    let build = |last: &str| {
        let env = Environment::new();
        let name = "x".repeat(90);
        source(&env).uid(&format!("{name}{last}")).key_by(&["key"]).apply(Sum("sum"));
        uids(&env.build().unwrap()).pop().unwrap()
    };
    assert!(build("a").len() <= 128 && build("a") != build("b"), "{} {}", build("a"), build("b"));
}

#[test]
fn h7_an_earlier_uid_is_nobodys_today_and_belongs_to_one() {
    let env = Environment::new();
    let events = source(&env).uid("events");
    events.clone().key_by(&["key"]).apply(Sum("sum")).uid("sums").uid_was("events");
    let error = env.build().err().unwrap().to_string();
    assert!(error.contains("sums: its earlier uid events is one of today's uids"), "{error}");
    let env = Environment::new();
    let events = source(&env).uid("events");
    events.key_by(&["key"]).apply(Sum("sum")).uid("sums").uid_was("old");
    events.key_by(&["key"]).apply(Sum("sum")).uid("others").uid_was("old");
    let error = env.build().err().unwrap().to_string();
    assert!(error.contains("old is given as the earlier uid of both sums and others"), "{error}");
}

#[test]
fn h7_an_operator_that_is_keyed_must_say_what_its_state_is() {
    struct Forgetful;
    impl OperatorFactory for Forgetful {
        fn name(&self) -> String {
            "forgetful".into()
        }
        fn create(&self) -> Result<Box<dyn Operator>> {
            Err(crate::Error::internal("only planned"))
        }
        fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
            Ok(inputs.to_vec())
        }
        fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
            None
        }
        fn is_keyed(&self) -> bool {
            true
        }
    }
    let env = Environment::new();
    source(&env).key_by(&["key"]).apply(Forgetful);
    let error = env.build().err().unwrap().to_string();
    assert!(error.contains("does not say what its state is"), "{error}");
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
