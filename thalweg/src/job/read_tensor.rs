//! Reads `kind: tensor`: a graph of tensor ops as it is written down, with what its steps name.

use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use thalweg_operators::tensor::spec::{GraphSpec, Named, Step};

use crate::config::{Checker, Node, Place, Placed, Table, Text, Value};

use super::read_transform::{read_location, read_transform};
use super::spec::StepKind;
use super::transform_spec::TensorSpec;

/// `kind: tensor`.
pub(super) fn read_tensor(table: &Table<'_>) -> Option<StepKind> {
    let graph = read_graph(table);
    let weights = match table.optional("weights") {
        Some(node) => read_locations(table.checker(), node),
        None => Some(Vec::new()),
    };
    let tokenizers = read_named_locations(table, "tokenizers");
    let models = read_named_locations(table, "models");
    let references = read_named_locations(table, "references");
    let is_half = table.choice("precision", &[("f32", false), ("f16", true)]).unwrap_or(false);
    let reload_every = table.duration("reload_every").filter(|&micros| micros > 0);
    let transform = read_transform(table);
    let (graph, step_places) = graph?;
    Some(StepKind::Tensor(Box::new(TensorSpec {
        graph,
        step_places,
        weights: weights?,
        tokenizers: tokenizers?,
        models: models?,
        references: references?,
        is_half,
        reload_every,
        transform: transform?,
    })))
}

/// `inputs`, `steps` and `outputs` of the graph, and where each step stands.
fn read_graph(table: &Table<'_>) -> Option<(GraphSpec, Vec<Place>)> {
    let checker = table.checker();
    let graph = table.required("graph", "a table of `inputs`, `steps` and `outputs`")?;
    let table = checker.table(graph)?;
    let inputs = table.required("inputs", "a table such as `{embedding: {tensor: f32, shape: [384]}}`");
    let steps = table.required("steps", "a list such as `[{name: y, op: l2_normalise, of: x}]`");
    let outputs = table.required("outputs", "a table of columns and the steps that make them");
    let inputs = inputs.and_then(|node| read_named(checker, node));
    let steps = steps.and_then(|node| checker.list(node)).and_then(|items| {
        // All mistakes at once.
        let read: Vec<Option<Step>> = items.iter().map(|item| deserialised(checker, item)).collect();
        let places = items.iter().map(Place::from).collect::<Vec<_>>();
        Some((read.into_iter().collect::<Option<Vec<_>>>()?, places))
    });
    let outputs = outputs.and_then(|node| read_named(checker, node));
    table.finish();
    let (steps, places) = steps?;
    Some((GraphSpec { inputs: inputs?, steps, outputs: outputs? }, places))
}

fn read_named<T: DeserializeOwned>(checker: &Checker<'_>, node: &Node) -> Option<Named<T>> {
    let table = checker.table(node)?;
    let read =
        table.entries().iter().map(|entry| Some((entry.key.clone(), deserialised(checker, &entry.value)?)));
    let read: Vec<Option<(String, T)>> = read.collect();
    Some(Named(read.into_iter().collect::<Option<_>>()?))
}

fn deserialised<T: DeserializeOwned>(checker: &Checker<'_>, node: &Node) -> Option<T> {
    match serde_json::from_value(json(checker, node)?) {
        Ok(read) => Some(read),
        Err(error) => {
            checker.mistake_at(node, error.to_string());
            None
        }
    }
}

/// A node as JSON: text without quotes is a number or a truth value where it reads as one. `None`
/// after a mistake.
fn json(checker: &Checker<'_>, node: &Node) -> Option<Json> {
    Some(match &node.value {
        Value::Nothing => Json::Null,
        Value::Text { quoted, .. } => {
            let text = checker.text(node, "a value")?;
            match serde_json::from_str(text.as_str()) {
                Ok(value @ (Json::Number(_) | Json::Bool(_))) if !quoted => value,
                _ => Json::String(text.reveal().clone()),
            }
        }
        Value::List(items) => {
            Json::Array(items.iter().map(|item| json(checker, item)).collect::<Option<_>>()?)
        }
        Value::Table(entries) => {
            let read = entries.iter().map(|entry| Some((entry.key.clone(), json(checker, &entry.value)?)));
            Json::Object(read.collect::<Option<_>>()?)
        }
    })
}

/// One location, or a list of them.
fn read_locations(checker: &Checker<'_>, node: &Node) -> Option<Vec<Placed<Text>>> {
    match &node.value {
        Value::List(items) => {
            let read: Vec<_> = items.iter().map(|item| read_location(checker, item)).collect();
            read.into_iter().collect()
        }
        _ => Some(vec![read_location(checker, node)?]),
    }
}

fn read_named_locations(table: &Table<'_>, key: &str) -> Option<Vec<(String, Placed<Text>)>> {
    let Some(node) = table.optional(key) else {
        return Some(Vec::new());
    };
    let checker = table.checker();
    let entries = checker.table(node)?;
    let read = entries.entries().iter();
    let read: Vec<_> =
        read.map(|entry| Some((entry.key.clone(), read_location(checker, &entry.value)?))).collect();
    read.into_iter().collect()
}
