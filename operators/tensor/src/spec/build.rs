//! From what is written down to a checked graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{GraphSpec, InputSpec, OpSpec, Step};
use crate::op::{ReferenceId, ValueId, WeightId};
use crate::{Error, Graph, GraphBuilder, ReferenceMatrix, Result, SentenceEncoder, Weights};

/// What a graph's steps name: nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Parts<'a> {
    /// Where weights have their shapes from.
    pub weights: Option<&'a Weights>,
    /// Where reference matrices have their widths from; they go by their own names.
    pub references: &'a [Arc<ReferenceMatrix>],
    /// Sentence encoders by the names that `encode` calls them by.
    pub encoders: BTreeMap<&'a str, &'a SentenceEncoder>,
}

struct Build<'a> {
    parts: &'a Parts<'a>,
    builder: GraphBuilder,
    values: BTreeMap<String, ValueId>,
}

impl GraphSpec {
    /// Checks every step.
    ///
    /// # Errors
    /// Names the step by place and name, and says what does not fit, with both shapes.
    pub fn build(&self, parts: &Parts<'_>) -> Result<Graph> {
        let mut build = Build { parts, builder: GraphBuilder::new(), values: BTreeMap::new() };
        for (name, input) in &self.inputs.0 {
            let value =
                build.input(name, input).map_err(|error| within(format!("input `{name}`"), None, error))?;
            build.values.insert(name.clone(), value);
        }
        for (index, step) in self.steps.iter().enumerate() {
            let place = format!("step {index} `{}`", step.name.names().join(", "));
            build.step(step).map_err(|error| within(place, Some(index), error))?;
        }
        for (name, of) in &self.outputs.0 {
            let output = build.value(of).and_then(|value| build.builder.output(name, value));
            output.map_err(|error| within(format!("output `{name}`"), None, error))?;
        }
        build.builder.build()
    }
}

/// The error, said of that place.
fn within(op: String, step: Option<usize>, error: Error) -> Error {
    let reason = match error {
        Error::Graph { reason, .. } => reason,
        other => other.to_string(),
    };
    Error::Graph { op, step, reason }
}

impl Build<'_> {
    fn input(&mut self, name: &str, input: &InputSpec) -> Result<ValueId> {
        match input {
            InputSpec::Tensor { element, shape } => self.builder.tensor(name, *element, shape.clone()),
            InputSpec::Tokens(length_max) => self.builder.tokens(name, *length_max),
            InputSpec::Text { tokenizer, length_max } => self.builder.text(name, tokenizer, *length_max),
        }
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let names = step.name.names();
        let of = step.of.names().iter().map(|name| self.value(name)).collect::<Result<Vec<ValueId>>>()?;
        if let Some(taken) = names.iter().find(|name| self.values.contains_key(*name)) {
            return Err(Error::graph("step", format!("there is an input or a step `{taken}` already")));
        }
        self.builder.name(names.join(", "));
        let made = self.op(&step.op, &of)?;
        if made.len() != names.len() {
            let reason = format!("makes {} values, and has {} names", made.len(), names.len());
            return Err(Error::graph("step", reason));
        }
        self.values.extend(names.iter().cloned().zip(made));
        Ok(())
    }

    fn op(&mut self, op: &OpSpec, of: &[ValueId]) -> Result<Vec<ValueId>> {
        if let OpSpec::Concat {} = op {
            return Ok(vec![self.builder.concat(of)?]);
        }
        match (op, of) {
            (OpSpec::Add {}, &[left, right]) => Ok(vec![self.builder.add(left, right)?]),
            (OpSpec::Dequantise { to }, &[values, scales]) => {
                Ok(vec![self.builder.dequantise(values, scales, *to)?])
            }
            (OpSpec::Attention { heads, causal }, &[query, key, value]) => {
                Ok(vec![self.builder.attention([query, key, value], *heads, *causal)?])
            }
            (OpSpec::Add {} | OpSpec::Dequantise { .. }, _) => Err(reads(of, "2")),
            (OpSpec::Attention { .. }, _) => Err(reads(of, "3 (query, key, value)")),
            (op, &[x]) => self.unary(op, x),
            _ => Err(reads(of, "1")),
        }
    }

    fn unary(&mut self, op: &OpSpec, x: ValueId) -> Result<Vec<ValueId>> {
        let made = match op {
            OpSpec::Gather { table, element } => {
                let table = self.weight(table)?;
                self.builder.gather(x, table, *element)
            }
            OpSpec::Positions { table, element } => {
                let table = self.weight(table)?;
                self.builder.positions(x, table, *element)
            }
            OpSpec::MatMul { weight, bias, activation } => {
                let weight = self.weight(weight)?;
                let bias = bias.as_ref().map(|bias| self.weight(bias)).transpose()?;
                self.builder.matmul(x, weight, bias, *activation)
            }
            OpSpec::AddBias { bias } => {
                let bias = self.weight(bias)?;
                self.builder.add_bias(x, bias)
            }
            OpSpec::LayerNorm { gamma, beta, epsilon } => {
                let (gamma, beta) = (self.weight(gamma)?, self.weight(beta)?);
                self.builder.layer_norm(x, gamma, beta, *epsilon)
            }
            OpSpec::Standardise { mean, deviation } => {
                let (mean, deviation) = (self.weight(mean)?, self.weight(deviation)?);
                self.builder.standardise(x, mean, deviation)
            }
            OpSpec::TopK { reference, metric, k } => {
                let reference = self.reference(reference)?;
                let (ids, scores) = self.builder.top_k(x, reference, *metric, *k)?;
                return Ok(vec![ids, scores]);
            }
            OpSpec::Encode { model } => self.encode(x, model),
            other => return self.without_parts(other, x),
        };
        Ok(vec![made?])
    }

    /// Ops that name no weight.
    fn without_parts(&mut self, op: &OpSpec, x: ValueId) -> Result<Vec<ValueId>> {
        let builder = &mut self.builder;
        let made = match op {
            OpSpec::Activate { activation } => builder.activate(x, *activation),
            OpSpec::Softmax {} => builder.softmax(x),
            OpSpec::Pool { pooling } => builder.pool(x, *pooling),
            OpSpec::L2Normalise {} => builder.l2_normalise(x),
            OpSpec::Quantise {} => {
                let (values, scales) = builder.quantise(x)?;
                return Ok(vec![values, scales]);
            }
            OpSpec::Cast { to } => builder.cast(x, *to),
            OpSpec::Slice { start, length } => builder.slice(x, *start, *length),
            OpSpec::MinHash { hashes, seed } => builder.min_hash(x, *hashes, *seed),
            OpSpec::SimHash { words, seed } => builder.sim_hash(x, *words, *seed),
            OpSpec::FeatureHash { width, seed } => builder.feature_hash(x, *width, *seed),
            OpSpec::Bucketise { boundaries } => builder.bucketise(x, boundaries.clone()),
            _ => Err(Error::graph("step", "reads another number of values")),
        };
        Ok(vec![made?])
    }

    fn encode(&mut self, tokens: ValueId, model: &str) -> Result<ValueId> {
        match self.parts.encoders.get(model) {
            Some(encoder) => encoder.append(&mut self.builder, tokens),
            None => {
                let known: Vec<&str> = self.parts.encoders.keys().copied().collect();
                Err(Error::graph("step", format!("there is no model `{model}` among [{}]", known.join(", "))))
            }
        }
    }

    fn value(&self, name: &str) -> Result<ValueId> {
        match self.values.get(name) {
            Some(value) => Ok(*value),
            None => Err(Error::graph("step", format!("there is no input or earlier step `{name}`"))),
        }
    }

    fn weight(&mut self, name: &str) -> Result<WeightId> {
        match self.parts.weights.and_then(|weights| weights.get(name)) {
            Some(stored) => self.builder.weight(name, stored.dims.clone()),
            None => Err(Error::graph("step", format!("there is no weight `{name}`"))),
        }
    }

    fn reference(&mut self, name: &str) -> Result<ReferenceId> {
        match self.parts.references.iter().find(|matrix| matrix.name() == name) {
            Some(matrix) => self.builder.reference(name, matrix.width()),
            None => Err(Error::graph("step", format!("there is no reference matrix `{name}`"))),
        }
    }
}

fn reads(of: &[ValueId], wanted: &str) -> Error {
    Error::graph("step", format!("reads {} values, wanted {wanted}", of.len()))
}
