//! From a graph to a program: ops become steps, ops that work in place join the step before them.

use arrow::buffer::Buffer;

use super::elements::held_bytes;
use super::isa::Isa;
use super::matrix::PackedMatrix;
use super::program::{
    BufferInfo, Chunked, Cost, Output, Place, Program, Role, Slot, Stage, TopK, ValueInfo, place,
};
use super::signatures::{MinHash, sim_hash_keys};
use super::step::{Kind, RowOp, Step};
use super::steps::Steps;
use crate::graph::Node;
use crate::hashing::token_key;
use crate::op::{Op, ValueId, WeightId};
use crate::{Element, Graph, Result, Weights};

/// Makes a graph's program.
pub(super) fn compile(isa: Isa, graph: &Graph, weights: &Weights) -> Result<Program> {
    weights.check(graph)?;
    let levels = Levels::of(graph);
    let mut compiler = Compiler {
        isa,
        graph,
        weights,
        values: Vec::new(),
        buffers: Vec::new(),
        kept: vec![None; graph.values().len()],
        uses: uses(graph),
        levels,
        narrow: Vec::new(),
    };
    let domains = compiler.describe_values();
    compiler.keep_what_outlives_its_stage();
    let outputs = compiler.outputs();
    let mut stages = Vec::new();
    for level in 0..=compiler.levels.last {
        match level % 2 {
            0 => stages.extend(compiler.chunked(level)?.map(Stage::Chunked)),
            _ => stages.extend(compiler.top_ks(level).into_iter().map(Stage::TopK)),
        }
    }
    Ok(Program { values: compiler.values, stages, buffers: compiler.buffers, outputs, domains })
}

struct Compiler<'a> {
    isa: Isa,
    graph: &'a Graph,
    weights: &'a Weights,
    values: Vec<ValueInfo>,
    buffers: Vec<BufferInfo>,
    /// The buffer of each value that has one.
    kept: Vec<Option<usize>>,
    /// How many ops and outputs read each value.
    uses: Vec<usize>,
    levels: Levels,
    /// `f16` outputs, each with the buffer that it goes out in.
    narrow: Vec<(ValueId, usize)>,
}

/// The stage of each op: even levels are steps, odd ones top-k.
struct Levels {
    nodes: Vec<usize>,
    last: usize,
}

impl Levels {
    fn of(graph: &Graph) -> Levels {
        let mut values = vec![0; graph.values().len()];
        let mut nodes = Vec::with_capacity(graph.nodes().len());
        for node in graph.nodes() {
            let ready = node.inputs.iter().map(|input| values[input.0 as usize]).max().unwrap_or(0);
            let is_odd = usize::from(matches!(node.op, Op::TopK { .. }));
            // The next level of its kind, from the one on in which its inputs are made.
            let level = ready + usize::from(ready % 2 != is_odd);
            for output in &node.outputs {
                values[output.0 as usize] = level;
            }
            nodes.push(level);
        }
        let last = nodes.iter().copied().max().unwrap_or(0);
        Levels { nodes, last }
    }
}

fn uses(graph: &Graph) -> Vec<usize> {
    let mut uses = vec![0; graph.values().len()];
    let read = graph.nodes().iter().flat_map(|node| node.inputs.iter());
    for value in read.chain(graph.outputs().iter().map(|(_, value)| value)) {
        uses[value.0 as usize] += 1;
    }
    uses
}

impl Compiler<'_> {
    /// Fills `values`, and gives each domain's input.
    fn describe_values(&mut self) -> Vec<Option<usize>> {
        let mut domains = vec![None];
        let inputs = self.graph.inputs();
        let ragged = |index: &usize| self.graph.value(inputs[*index].value).axis.is_some();
        domains.extend((0..inputs.len()).filter(ragged).map(Some));
        let domain_of = |axis: &str| {
            let is_axis = |domain: &Option<usize>| domain.is_some_and(|index| &*inputs[index].name == axis);
            domains.iter().position(is_axis).unwrap_or(0)
        };
        self.values = self
            .graph
            .values()
            .iter()
            .map(|ty| ValueInfo {
                domain: ty.axis.as_ref().map_or(0, |axis| domain_of(axis)),
                width: ty.width(),
                last: ty.last(),
                element_bytes: held_bytes(ty.element),
            })
            .collect();
        domains
    }

    fn is_half(&self, value: ValueId) -> bool {
        self.graph.value(value).element == Element::F16
    }

    fn buffer(&mut self, value: ValueId, role: Role, element_bytes: usize) -> usize {
        let info = &self.values[value.0 as usize];
        self.buffers.push(BufferInfo { role, domain: info.domain, bytes: info.width * element_bytes });
        self.buffers.len() - 1
    }

    /// Gives a buffer to each input that is read as it is, each output that is held as it goes out,
    /// and each value that another stage than its own reads.
    fn keep_what_outlives_its_stage(&mut self) {
        let graph = self.graph;
        let mut made_in = vec![0; graph.values().len()];
        for (node, level) in graph.nodes().iter().zip(&self.levels.nodes) {
            for output in &node.outputs {
                made_in[output.0 as usize] = *level;
            }
        }
        for (index, input) in graph.inputs().iter().enumerate() {
            if !self.is_half(input.value) {
                let bytes = held_bytes(graph.value(input.value).element);
                self.kept[input.value.0 as usize] = Some(self.buffer(input.value, Role::Input(index), bytes));
            }
        }
        for (_, value) in graph.outputs() {
            if self.kept[value.0 as usize].is_none() && !self.is_half(*value) {
                let bytes = held_bytes(graph.value(*value).element);
                self.kept[value.0 as usize] = Some(self.buffer(*value, Role::Output, bytes));
            }
        }
        for (node, level) in graph.nodes().iter().zip(self.levels.nodes.clone()) {
            let is_top_k = matches!(node.op, Op::TopK { .. });
            let others = node.inputs.iter().filter(|input| made_in[input.0 as usize] != level);
            let own = node.outputs.iter().filter(|_| is_top_k);
            for value in others.chain(own) {
                if self.kept[value.0 as usize].is_none() {
                    let bytes = self.values[value.0 as usize].element_bytes;
                    self.kept[value.0 as usize] = Some(self.buffer(*value, Role::Between, bytes));
                }
            }
        }
    }

    /// Where the outputs are found; an `f16` one gets the buffer that it is narrowed into.
    fn outputs(&mut self) -> Vec<Output> {
        let graph = self.graph;
        let mut outputs = Vec::with_capacity(graph.outputs().len());
        for (_, value) in graph.outputs() {
            let input = graph.inputs().iter().position(|input| input.value == *value);
            outputs.push(match (input, self.narrow.iter().find(|(known, _)| known == value)) {
                (Some(input), _) => Output::Input(input),
                (None, Some((_, buffer))) => Output::Buffer(*buffer),
                (None, None) if self.is_half(*value) => {
                    let buffer = self.buffer(*value, Role::Output, size_of::<half::f16>());
                    self.narrow.push((*value, buffer));
                    Output::Buffer(buffer)
                }
                (None, None) => Output::Buffer(self.kept[value.0 as usize].unwrap_or_default()),
            });
        }
        outputs
    }

    fn top_ks(&self, level: usize) -> Vec<TopK> {
        let nodes = self.graph.nodes().iter().zip(&self.levels.nodes);
        let here = nodes.filter(|(_, own)| **own == level);
        let buffer = |value: ValueId| self.kept[value.0 as usize].unwrap_or_default();
        here.filter_map(|(node, _)| match node.op {
            Op::TopK { reference, metric, k } => Some(TopK {
                query_buffer: buffer(node.inputs[0]),
                ids_buffer: buffer(node.outputs[0]),
                scores_buffer: buffer(node.outputs[1]),
                reference: reference.0 as usize,
                metric,
                k,
            }),
            _ => None,
        })
        .collect()
    }

    /// The steps of a level; none where there is nothing to do.
    fn chunked(&mut self, level: usize) -> Result<Option<Chunked>> {
        let mut steps = Steps::new(self.graph.values().len());
        if level == 0 {
            self.widen_inputs(&mut steps);
        }
        let graph = self.graph;
        for (index, node) in graph.nodes().iter().enumerate() {
            if self.levels.nodes[index] == level {
                self.add_node(node, &mut steps)?;
            }
        }
        let mut steps = steps.finish();
        for step in &mut steps {
            step.rounds = step.outputs.first().is_some_and(|value| self.is_half(*value))
                && !(matches!(step.kind, Kind::Widen { .. }) && step.then.is_empty());
        }
        self.narrow_outputs(&mut steps);
        if steps.is_empty() {
            return Ok(None);
        }
        let (places, slots) = place(&steps, &self.values, &self.kept);
        let costs = self.costs(&steps, &places, &slots);
        let has_products = steps.iter().any(|step| matches!(step.kind, Kind::MatMul { .. }));
        let heads = steps.iter().map(|step| match step.kind {
            Kind::Attention { heads, .. } => self.values[step.inputs[0].0 as usize].width / heads,
            _ => 0,
        });
        let head_max = heads.max().unwrap_or(0);
        Ok(Some(Chunked { steps, places, slots, costs, has_products, head_max }))
    }

    fn widen_inputs(&mut self, steps: &mut Steps) {
        for (index, input) in self.graph.inputs().iter().enumerate() {
            let value = input.value;
            let is_read = self.graph.nodes().iter().any(|node| node.inputs.contains(&value));
            if self.is_half(value) && is_read {
                let buffer = self.buffer(value, Role::Input(index), size_of::<half::f16>());
                steps.push(Kind::Widen { buffer }, vec![], vec![value]);
                steps.open(value);
            }
        }
    }

    /// Behind each step that makes an `f16` output: to where it goes out.
    fn narrow_outputs(&self, steps: &mut Vec<Step>) {
        for (value, buffer) in &self.narrow {
            let Some(made) = steps.iter().position(|step| step.outputs.contains(value)) else { continue };
            let kind = Kind::Narrow { buffer: *buffer };
            let step = Step { kind, inputs: vec![*value], outputs: vec![], then: vec![], rounds: false };
            steps.insert(made + 1, step);
        }
    }

    fn costs(&self, steps: &[Step], places: &[Place], slots: &[Slot]) -> Vec<Cost> {
        let domains = self.values.iter().map(|value| value.domain + 1).max().unwrap_or(1);
        let mut costs = vec![Cost::default(); domains];
        for slot in slots {
            costs[slot.domain].slots += slot.bytes;
        }
        let mut used = vec![false; places.len()];
        for value in steps.iter().flat_map(|step| step.reads().chain(step.outputs.iter().copied())) {
            used[value.0 as usize] = true;
        }
        for (value, _) in used.iter().enumerate().filter(|(_, used)| **used) {
            if let Place::Buffer(_) = places[value] {
                costs[self.values[value].domain].buffers += self.values[value].bytes();
            }
        }
        costs
    }

    fn weight(&self, id: WeightId) -> Result<Vec<f32>> {
        self.weights.to_f32(&self.graph.weight(id).name)
    }

    /// A table as `f32`: the stored memory itself where it can be read as it is.
    fn table(&self, id: WeightId) -> Result<Buffer> {
        let name = &self.graph.weight(id).name;
        match self.weights.get(name) {
            Some(stored)
                if stored.element == Element::F32
                    && cfg!(target_endian = "little")
                    && stored.data.as_ptr().align_offset(align_of::<f32>()) == 0 =>
            {
                Ok(stored.data.clone())
            }
            _ => Ok(Buffer::from_vec(self.weights.to_f32(name)?)),
        }
    }

    fn add_node(&self, node: &Node, steps: &mut Steps) -> Result<()> {
        if let Some(op) = self.row_op(&node.op)? {
            steps.follow(op, node.inputs[0], node.outputs[0], &self.uses);
            return Ok(());
        }
        let element = |value: ValueId| self.graph.value(value).element;
        let kind = match &node.op {
            Op::Add => {
                steps.add(node.inputs[0], node.inputs[1], node.outputs[0], &self.uses);
                return Ok(());
            }
            Op::Quantise => {
                let (input, normalise) = steps.take_normalise(node.inputs[0], &self.uses);
                steps.push(Kind::Quantise { normalise }, vec![input], node.outputs.clone());
                return Ok(());
            }
            Op::Gather { table, .. } => Kind::Gather { table: self.table(*table)? },
            Op::Positions { table, .. } => Kind::Positions { table: self.table(*table)? },
            Op::MatMul { weight, bias, activation } => {
                let depth = self.graph.weight(*weight).dims[1];
                let bias = bias.map(|bias| self.weight(bias)).transpose()?;
                let matrix = PackedMatrix::new(self.isa, &self.weight(*weight)?, depth, bias.as_deref());
                Kind::MatMul { matrix, activation: *activation }
            }
            Op::Attention { heads, causal } => Kind::Attention { heads: *heads, causal: *causal },
            Op::Pool(pooling) => Kind::Pool(*pooling),
            Op::Dequantise { .. } => Kind::Dequantise,
            Op::Cast { to } => Kind::Cast { from: element(node.inputs[0]), to: *to },
            Op::Concat => Kind::Concat,
            Op::Slice { start, .. } => Kind::Slice { start: *start },
            Op::MinHash { hashes, seed } => Kind::MinHash(MinHash::new(*hashes, *seed)),
            Op::SimHash { words, seed } => Kind::SimHash { keys: sim_hash_keys(*words, *seed) },
            Op::FeatureHash { seed, .. } => Kind::FeatureHash { key: token_key(*seed, 0) },
            Op::Bucketise { boundaries } => Kind::Bucketise { boundaries: boundaries.clone() },
            // Row ops were taken above, and top-k has stages of its own.
            Op::AddBias { .. }
            | Op::Activate(_)
            | Op::LayerNorm { .. }
            | Op::Softmax
            | Op::L2Normalise { .. }
            | Op::Standardise { .. }
            | Op::TopK { .. } => return Ok(()),
        };
        steps.push(kind, node.inputs.clone(), node.outputs.clone());
        // A cast rounds whatever follows it.
        if element(node.outputs[0]).is_float() && !matches!(node.op, Op::Cast { .. }) {
            steps.open(node.outputs[0]);
        }
        Ok(())
    }

    fn row_op(&self, op: &Op) -> Result<Option<RowOp>> {
        Ok(Some(match op {
            Op::AddBias { bias } => RowOp::AddBias(self.weight(*bias)?),
            Op::Activate(activation) => RowOp::Activate(*activation),
            Op::LayerNorm { gamma, beta, epsilon } => {
                RowOp::LayerNorm { gamma: self.weight(*gamma)?, beta: self.weight(*beta)?, epsilon: *epsilon }
            }
            Op::Softmax => RowOp::Softmax,
            Op::L2Normalise { epsilon } => RowOp::L2Normalise { epsilon: *epsilon },
            Op::Standardise { mean, deviation } => {
                RowOp::Standardise { mean: self.weight(*mean)?, deviation: self.weight(*deviation)? }
            }
            _ => return Ok(None),
        }))
    }
}
