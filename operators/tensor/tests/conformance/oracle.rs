//! What each op means, in `f64` and plain loops, with how far an honest backend may be off.
//!
//! It reads `thalweg_tensor::op` and `hashing` and nothing of a backend.

mod elements;
mod tokens;
mod top_k;
mod vectors;

use std::sync::Arc;

use thalweg_tensor::op::{Op, WeightId};
use thalweg_tensor::{Element, Graph, ReferenceMatrix, Result, TensorBatch, Weights};

use crate::tolerance::{U16, U16_SMALL, U32};
use crate::value::Value;

/// A graph with its weights, ready to be asked.
pub struct Oracle<'a> {
    graph: &'a Graph,
    weights: Vec<Vec<f64>>,
    references: &'a [Arc<ReferenceMatrix>],
    /// How often slack is taken where a float becomes an integer.
    safety: f64,
}

/// Changes an op before it is computed, for backends that are wrong on purpose.
pub type Rewrite = fn(&Op) -> Op;

impl<'a> Oracle<'a> {
    pub fn new(
        graph: &'a Graph,
        weights: &Weights,
        references: &'a [Arc<ReferenceMatrix>],
        safety: f64,
    ) -> Result<Oracle<'a>> {
        weights.check(graph)?;
        let stored = |name: &str| Ok(weights.to_f32(name)?.into_iter().map(f64::from).collect());
        let weights =
            graph.weights().iter().map(|weight| stored(&weight.name)).collect::<Result<Vec<Vec<f64>>>>()?;
        Ok(Oracle { graph, weights, references, safety })
    }

    /// The graph's outputs for a batch.
    pub fn outputs(&self, batch: &TensorBatch) -> Vec<Value> {
        self.outputs_with(batch, Op::clone, |_| {})
    }

    /// The same, with ops changed first and every value after it is made.
    pub fn outputs_with(
        &self,
        batch: &TensorBatch,
        rewrite: Rewrite,
        after: impl Fn(&mut Value),
    ) -> Vec<Value> {
        let mut values: Vec<Option<Value>> = vec![None; self.graph.values().len()];
        for (input, tensor) in self.graph.inputs().iter().zip(&batch.tensors) {
            values[input.value.0 as usize] = Some(Value::of(tensor));
        }
        for node in self.graph.nodes() {
            let inputs: Vec<&Value> =
                node.inputs.iter().map(|id| values[id.0 as usize].as_ref().expect("made before")).collect();
            let types = node.outputs.iter().map(|id| self.graph.value(*id));
            let mut made: Vec<Value> = types.map(|ty| Value::new(ty, inputs[0])).collect();
            self.compute(&rewrite(&node.op), &inputs, &mut made);
            for (id, mut value) in node.outputs.iter().zip(made) {
                after(&mut value);
                values[id.0 as usize] = Some(value);
            }
        }
        let output = |(_, id): &(Arc<str>, thalweg_tensor::op::ValueId)| {
            values[id.0 as usize].clone().expect("every output is made")
        };
        self.graph.outputs().iter().map(output).collect()
    }

    fn compute(&self, op: &Op, inputs: &[&Value], made: &mut [Value]) {
        let x = inputs[0];
        match op {
            Op::Gather { table, .. } => self.gather(x, *table, &mut made[0]),
            Op::Positions { table, .. } => self.positions(x, *table, &mut made[0]),
            Op::MatMul { weight, bias, activation } => {
                self.matmul(op, x, (*weight, *bias, *activation), &mut made[0]);
            }
            Op::Add => elements::add(op, x, inputs[1], &mut made[0]),
            Op::AddBias { bias } => self.add_bias(op, x, *bias, &mut made[0]),
            Op::Activate(activation) => elements::activate(*activation, x, &mut made[0]),
            Op::LayerNorm { gamma, beta, epsilon } => {
                self.layer_norm(op, x, (*gamma, *beta, *epsilon), &mut made[0]);
            }
            Op::Softmax => vectors::softmax(op, x, &mut made[0]),
            Op::Attention { heads, causal } => {
                tokens::attention(op, inputs, (*heads, *causal), &mut made[0]);
            }
            Op::Pool(pooling) => tokens::pool(op, *pooling, x, &mut made[0]),
            Op::L2Normalise { epsilon } => vectors::l2_normalise(op, x, f64::from(*epsilon), &mut made[0]),
            Op::Quantise => self.quantise(op, x, made),
            Op::Dequantise { .. } => elements::dequantise(op, x, inputs[1], &mut made[0]),
            Op::Cast { to } => self.cast(*to, x, &mut made[0]),
            Op::Concat => vectors::concat(inputs, &mut made[0]),
            Op::Slice { start, length } => vectors::slice(x, *start, *length, &mut made[0]),
            Op::TopK { reference, metric, k } => {
                let matrix = &self.references[reference.0 as usize];
                top_k::top_k(op, x, matrix, (*metric, *k), made);
            }
            Op::MinHash { hashes, seed } => tokens::min_hash(x, *hashes, *seed, &mut made[0]),
            Op::SimHash { words, seed } => tokens::sim_hash(x, *words, *seed, &mut made[0]),
            Op::FeatureHash { width, seed } => tokens::feature_hash(x, *width, *seed, &mut made[0]),
            Op::Bucketise { boundaries } => self.bucketise(x, boundaries, &mut made[0]),
            Op::Standardise { mean, deviation } => {
                self.standardise(op, x, (*mean, *deviation), &mut made[0]);
            }
        }
    }

    fn weight(&self, id: WeightId) -> &[f64] {
        &self.weights[id.0 as usize]
    }
}

/// What a weight of that size may be off: nothing, or its rounding where all is in `f16`.
fn stored_slack(element: Element) -> f64 {
    if element == Element::F16 { U16 } else { 0.0 }
}

/// What a product's sum may be off, however small, where it is stored in `f16` before its activation.
fn stored_small(element: Element) -> f64 {
    if element == Element::F16 { U16_SMALL } else { 0.0 }
}

/// Independent errors together.
fn in_quadrature(squares: f64) -> f64 {
    squares.sqrt()
}

fn u32s(units: f64, magnitude: f64) -> f64 {
    units * U32 * magnitude
}
