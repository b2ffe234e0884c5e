//! Graphs that are written down: every op, the way there and back, and what is said of mistakes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::buffer::Buffer;
use serde_json::{Value, json};
use thalweg_tensor::random_encoder::RandomEncoder;
use thalweg_tensor::spec::{GraphSpec, Parts};
use thalweg_tensor::weights::StoredTensor;
use thalweg_tensor::{Element, Graph, ReferenceMatrix, Result, SentenceEncoder, Weights};

fn weights() -> Weights {
    let mut weights = Weights::default();
    let shapes: [(&str, &[usize]); 8] = [
        ("words", &[30, 8]),
        ("places", &[16, 8]),
        ("dense", &[12, 8]),
        ("bias", &[12]),
        ("eight", &[8]),
        ("gamma", &[8]),
        ("buckets", &[3, 8]),
        ("ones", &[4, 8]),
    ];
    for (name, dims) in shapes {
        let data = Buffer::from_vec(vec![0f32; dims.iter().product()]);
        weights.insert(name, StoredTensor { element: Element::F32, dims: dims.to_vec(), data }).unwrap();
    }
    weights
}

fn build(spec: &Value) -> Result<Graph> {
    let spec: GraphSpec = serde_json::from_str(&spec.to_string()).unwrap();
    let weights = weights();
    let matrix = ReferenceMatrix::new("catalogue", 8, vec![0f32; 16].into(), vec![0i64, 1].into())?;
    let references = [Arc::new(matrix)];
    spec.build(&Parts { weights: Some(&weights), references: &references, encoders: BTreeMap::new() })
}

/// Every op but `encode`.
fn every_op() -> Value {
    json!({
        "inputs": {
            "tokens": {"tokens": 16},
            "x": {"tensor": "f32", "shape": [8]},
            "title": {"text": "small", "length_max": 9},
            "price": {"tensor": "f32"}
        },
        "steps": [
            {"name": "w", "op": "gather", "of": "tokens", "table": "words"},
            {"name": "p", "op": "positions", "of": "tokens", "table": "places", "element": "f32"},
            {"name": "e", "op": "add", "of": ["w", "p"]},
            {"name": "b", "op": "add_bias", "of": "e", "bias": "eight"},
            {"name": "n", "op": "layer_norm", "of": "b", "gamma": "gamma", "beta": "eight", "epsilon": 1e-12},
            {"name": "a", "op": "attention", "of": ["n", "n", "b"], "heads": 2, "causal": true},
            {"name": "m", "op": "matmul", "of": "a", "weight": "dense", "bias": "bias", "activation": "gelu_tanh"},
            {"name": "s", "op": "slice", "of": "m", "start": 2, "length": 8},
            {"name": "r", "op": "activate", "of": "s", "activation": "relu"},
            {"name": "pooled", "op": "pool", "of": "r", "pooling": "cls"},
            {"name": "soft", "op": "softmax", "of": "pooled"},
            {"name": "unit", "op": "l2_normalise", "of": "soft"},
            {"name": ["q", "scale"], "op": "quantise", "of": "unit"},
            {"name": "back", "op": "dequantise", "of": ["q", "scale"], "to": "f16"},
            {"name": "single", "op": "cast", "of": "back", "to": "f32"},
            {"name": "wide", "op": "concat", "of": ["single", "x", "unit"]},
            {"name": ["ids", "scores"], "op": "top_k", "of": "unit", "reference": "catalogue", "metric": "l2", "k": 2},
            {"name": "mh", "op": "min_hash", "of": "title", "hashes": 4, "seed": u64::MAX},
            {"name": "sh", "op": "sim_hash", "of": "title", "words": 1},
            {"name": "fh", "op": "feature_hash", "of": "title", "width": 5, "seed": 2},
            {"name": "bucket", "op": "bucketise", "of": "price", "boundaries": [-1.5, 0.1]},
            {"name": "bucketed", "op": "gather", "of": "bucket", "table": "buckets", "element": "f16"},
            {"name": "std", "op": "standardise", "of": "x", "mean": "eight", "deviation": "gamma"}
        ],
        "outputs": {"z": "wide", "ids": "ids", "scores": "scores", "mh": "mh", "sh": "sh", "fh": "fh",
            "bucketed": "bucketed", "a": "std", "x": "x"}
    })
}

#[test]
fn every_op_can_be_written_down() {
    let graph = build(&every_op()).unwrap();
    let mut ops: Vec<&str> = graph.nodes().iter().map(|node| node.op.name()).collect();
    ops.sort_unstable();
    ops.dedup();
    assert_eq!(ops.len(), 22, "all ops of `Op`");
    assert_eq!(graph.nodes()[6].name, "m");
    let mut outputs: Vec<String> =
        graph.outputs().iter().map(|(name, value)| format!("{name} {}", graph.value(*value))).collect();
    outputs.sort();
    let expected = [
        "a f32[8]",
        "bucketed f16[8]",
        "fh f32[5]",
        "ids i64[2]",
        "mh i32[4]",
        "scores f32[2]",
        "sh i64[1]",
        "x f32[8]",
        "z f32[24]",
    ];
    assert_eq!(outputs, expected);
    assert!(graph.describe().contains("seed: 18446744073709551615"));
}

#[test]
fn there_and_back() {
    let spec: GraphSpec = serde_json::from_str(&every_op().to_string()).unwrap();
    let text = serde_json::to_string(&spec).unwrap();
    let again: GraphSpec = serde_json::from_str(&text).unwrap();
    assert_eq!(spec, again);
    let (first, second) =
        (build(&every_op()).unwrap(), build(&serde_json::from_str(&text).unwrap()).unwrap());
    assert_eq!(first.describe(), second.describe());
}

#[test]
fn inputs_and_outputs_keep_the_order_in_which_they_were_written() {
    let text = r#"{
        "inputs": {"z": {"tensor": "f32"}, "a": {"tensor": "f32", "shape": [2]}},
        "steps": [],
        "outputs": {"second": "z", "first": "a"}
    }"#;
    let spec: GraphSpec = serde_json::from_str(text).unwrap();
    let again: GraphSpec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    for spec in [spec, again] {
        let graph = spec.build(&Parts::default()).unwrap();
        let inputs: Vec<&str> = graph.inputs().iter().map(|input| &*input.name).collect();
        let outputs: Vec<&str> = graph.outputs().iter().map(|(name, _)| &**name).collect();
        assert_eq!((inputs, outputs), (vec!["z", "a"], vec!["second", "first"]));
    }
}

#[test]
fn a_whole_model_is_a_step() {
    let directory = tempfile::tempdir().unwrap();
    RandomEncoder::default().write(directory.path()).unwrap();
    let encoder = SentenceEncoder::open(directory.path(), Element::F32).unwrap();
    let spec = |model: &str| -> GraphSpec {
        serde_json::from_value(json!({
            "inputs": {"title": {"text": "small", "length_max": 64}},
            "steps": [
                {"name": "e", "op": "encode", "of": "title", "model": model},
                {"name": ["q", "s"], "op": "quantise", "of": "e"},
            ],
            "outputs": {"q": "q", "s": "s"}
        }))
        .unwrap()
    };
    let parts = Parts { encoders: BTreeMap::from([("mini", &encoder)]), ..Parts::default() };
    let graph = spec("mini").build(&parts).unwrap();
    assert_eq!(graph.value(graph.outputs()[0].1).to_string(), "i8[32]");
    let error = spec("maxi").build(&parts).unwrap_err().to_string();
    assert_eq!(error, "op `step 0 `e``: there is no model `maxi` among [mini]");
    let mut own = weights();
    own.merge(encoder.weights()).unwrap();
    own.merge(encoder.weights()).unwrap();
    own.check(&graph).unwrap();
    let mut other = Weights::default();
    let data = Buffer::from_vec(vec![1f32; 8]);
    other.insert("gamma", StoredTensor { element: Element::F32, dims: vec![8], data }).unwrap();
    assert_eq!(
        own.merge(&other).unwrap_err().to_string(),
        "weight `gamma`: is another one than weight `gamma`"
    );
}

/// What is said once a step of [`every_op`] is another one.
fn mistake(index: usize, step: Value) -> String {
    let mut spec = every_op();
    spec["steps"][index] = step;
    build(&spec).unwrap_err().to_string()
}

#[test]
fn mistakes_are_said_of_the_step_with_both_shapes() {
    let mistakes = [
        (
            mistake(6, json!({"name": "m", "op": "matmul", "of": "a", "weight": "bias"})),
            "op `step 6 `m``: input f32[tokens, 8] by a weight of shape [12], not [out, in]",
        ),
        (
            mistake(3, json!({"name": "b", "op": "add_bias", "of": "e", "bias": "bias"})),
            "op `step 3 `b``: bias has shape [12], not [8]",
        ),
        (
            mistake(2, json!({"name": "e", "op": "add", "of": ["w", "x"]})),
            "op `step 2 `e``: f32[tokens, 8] and f32[8] differ",
        ),
        (
            mistake(2, json!({"name": "e", "op": "add", "of": "w"})),
            "op `step 2 `e``: reads 1 values, wanted 2",
        ),
        (
            mistake(2, json!({"name": "w", "op": "add", "of": ["w", "p"]})),
            "op `step 2 `w``: there is an input or a step `w` already",
        ),
        (
            mistake(2, json!({"name": "e", "op": "add", "of": ["w", "pooled"]})),
            "op `step 2 `e``: there is no input or earlier step `pooled`",
        ),
        (
            mistake(12, json!({"name": "q", "op": "quantise", "of": "unit"})),
            "op `step 12 `q``: makes 2 values, and has 1 names",
        ),
        (
            mistake(0, json!({"name": "w", "op": "gather", "of": "tokens", "table": "nowhere"})),
            "op `step 0 `w``: there is no weight `nowhere`",
        ),
        (
            mistake(
                16,
                json!({"name": ["ids", "scores"], "op": "top_k", "of": "wide", "reference": "catalogue",
                "metric": "dot", "k": 2}),
            ),
            "op `step 16 `ids, scores``: query f32[24] against a reference matrix of [rows, 8]",
        ),
    ];
    for (said, expected) in mistakes {
        assert_eq!(said, expected);
    }
    let mut spec = every_op();
    spec["outputs"]["more"] = json!("nothing");
    let error = build(&spec).unwrap_err().to_string();
    assert_eq!(error, "op `output `more``: there is no input or earlier step `nothing`");
}

#[test]
fn what_is_not_known_is_refused() {
    let refused = |text: &str| serde_json::from_str::<GraphSpec>(text).unwrap_err().to_string();
    let with = |inputs: &str, steps: &str, outputs: &str| {
        format!(r#"{{"inputs": {{{inputs}}}, "steps": [{steps}], "outputs": {{{outputs}}}}}"#)
    };
    let step = refused(&with("", r#"{"name": "y", "op": "softmax", "of": "x", "axis": 1}"#, ""));
    assert!(step.contains("step `y`: unknown field `axis`"), "{step}");
    let op = refused(&with("", r#"{"name": "y", "op": "softermax", "of": "x"}"#, ""));
    assert!(op.contains("step `y`: unknown variant `softermax`"), "{op}");
    let field = refused(&with("", r#"{"name": "y", "op": "slice", "of": "x", "start": 1}"#, ""));
    assert!(field.contains("step `y`: missing field `length`"), "{field}");
    let of = refused(&with("", r#"{"name": "y", "op": "softmax"}"#, ""));
    assert!(of.contains("missing field `of`"), "{of}");
    let input = refused(&with(r#""x": {"tensor": "f32", "tokens": 3}"#, "", ""));
    assert!(input.contains("an input is `tensor` with `shape`"), "{input}");
    let element = refused(&with(r#""x": {"tensor": "f64"}"#, "", ""));
    assert!(element.contains("unknown variant `f64`"), "{element}");
    let twice = refused(&with("", "", r#""y": "a", "y": "b""#));
    assert!(twice.contains("`y` stands here twice"), "{twice}");
    assert!(
        refused(r#"{"inputs": {}, "steps": [], "outputs": {}, "more": 1}"#).contains("unknown field `more`")
    );
}
