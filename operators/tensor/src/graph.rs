//! A transform as a graph: what comes in, what is done, what goes out.
//!
//! A graph is made by [`GraphBuilder`](crate::GraphBuilder), which checks every op's types as it is
//! added; one that exists is right. Nodes stand in an order in which they can be run.

use std::fmt::Write;
use std::sync::Arc;

use crate::TensorType;
use crate::op::{Metric, Op, ReferenceId, ValueId, WeightId};

/// What an input's column holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Tensors of a fixed shape.
    Tensor,
    /// A list of token ids per row.
    Tokens,
    /// Text that a tokenizer of that name turns into token ids before the batch reaches a backend.
    Text {
        /// The tokenizer's name among those given with the weights.
        tokenizer: Arc<str>,
        /// Tokens that a row keeps, special ones included.
        length_max: usize,
    },
}

/// An input of a graph: a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The column's name.
    pub name: Arc<str>,
    /// What the column holds.
    pub source: Source,
    /// The value that it becomes.
    pub value: ValueId,
    /// Where it holds ids: they are less than this. A row with another id, or a negative one, is
    /// refused before it reaches a backend.
    pub id_bound: Option<usize>,
    /// Where its rows vary in length: the greatest length. A longer row is refused.
    pub length_max: Option<usize>,
}

/// A tensor that the weights must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Its name in the weights.
    pub name: String,
    /// Its shape there.
    pub dims: Vec<usize>,
}

/// A reference matrix that must be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Elements of a vector.
    pub width: usize,
}

/// An op with what it reads and makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name, unique in the graph, for errors.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<ValueId>,
    /// What it makes: one value, or two for `quantise` (values, scales) and `top_k` (ids, scores).
    pub outputs: Vec<ValueId>,
}

/// A shape-checked graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    pub(crate) inputs: Vec<Input>,
    pub(crate) weights: Vec<Weight>,
    pub(crate) references: Vec<Reference>,
    pub(crate) values: Vec<TensorType>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) outputs: Vec<(Arc<str>, ValueId)>,
}

impl Graph {
    /// The columns that it reads.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// The tensors that its weights must have.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// One weight.
    pub fn weight(&self, id: WeightId) -> &Weight {
        &self.weights[id.0 as usize]
    }

    /// The reference matrices that it needs.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// What a reference matrix is compared by.
    pub fn metrics_of(&self, id: ReferenceId) -> Vec<Metric> {
        let metrics = self.nodes.iter().filter_map(|node| match node.op {
            Op::TopK { reference, metric, .. } if reference == id => Some(metric),
            _ => None,
        });
        metrics.collect()
    }

    /// One reference matrix.
    pub fn reference(&self, id: ReferenceId) -> &Reference {
        &self.references[id.0 as usize]
    }

    /// The types of all values.
    pub fn values(&self) -> &[TensorType] {
        &self.values
    }

    /// The type of one value.
    pub fn value(&self, id: ValueId) -> &TensorType {
        &self.values[id.0 as usize]
    }

    /// The ops, in an order in which they can be run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The columns that it makes, and the values that they hold.
    pub fn outputs(&self) -> &[(Arc<str>, ValueId)] {
        &self.outputs
    }

    /// The graph as text, a line per input, node and output; stable between processes, and part of
    /// what a checkpoint remembers.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for input in &self.inputs {
            let _ = writeln!(
                text,
                "%{} = input {} {:?}: {}",
                input.value.0,
                input.name,
                input.source,
                self.value(input.value)
            );
        }
        for node in &self.nodes {
            let outputs: Vec<String> = node.outputs.iter().map(|id| format!("%{}", id.0)).collect();
            let inputs: Vec<String> = node.inputs.iter().map(|id| format!("%{}", id.0)).collect();
            let types: Vec<String> = node.outputs.iter().map(|id| self.value(*id).to_string()).collect();
            let _ = writeln!(
                text,
                "{} = {} {:?} ({}): {}",
                outputs.join(", "),
                node.name,
                node.op,
                inputs.join(", "),
                types.join(", ")
            );
        }
        for (index, weight) in self.weights.iter().enumerate() {
            let _ = writeln!(text, "weight {index} {} {:?}", weight.name, weight.dims);
        }
        for (index, reference) in self.references.iter().enumerate() {
            let _ = writeln!(text, "reference {index} {} of {}", reference.name, reference.width);
        }
        for (name, value) in &self.outputs {
            let _ = writeln!(text, "output {name} = %{}", value.0);
        }
        text
    }
}
