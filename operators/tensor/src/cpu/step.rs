//! What a worker does for a chunk of rows: one step after the other, each making a value.
//!
//! A step ends with the row ops that follow it and read nothing else that is made later: they run
//! over what it made while that is warm.

use arrow::buffer::Buffer;

use super::attention::{Attend, AttentionScratch, attention};
use super::isa::Isa;
use super::matrix::{PackedMatrix, product};
use super::signatures::{MinHash, feature_hashes, min_hashes, sim_hashes};
use super::view::View;
use super::{elements, pool, quantise, rows};
use crate::Element;
use crate::op::{Activation, Pooling, ValueId};

/// Elements of a block that row ops go over together: half of a first cache.
const BLOCK_ELEMENTS: usize = 4_096;

/// One step.
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) inputs: Vec<ValueId>,
    pub(super) outputs: Vec<ValueId>,
    /// Done to the first output in place.
    pub(super) then: Vec<RowOp>,
    /// Whether the first output is of `f16`, and so is rounded to one.
    pub(super) rounds: bool,
}

/// What a step makes of its inputs.
pub(super) enum Kind {
    /// The input itself, for row ops to work on.
    Copy,
    /// An input of the graph that is `f16`, widened: it lies in the buffer of that number.
    Widen {
        buffer: usize,
    },
    Gather {
        table: Buffer,
    },
    Positions {
        table: Buffer,
    },
    MatMul {
        matrix: PackedMatrix,
        activation: Option<Activation>,
    },
    Attention {
        heads: usize,
        causal: bool,
    },
    Pool(Pooling),
    Quantise {
        normalise: Option<f32>,
    },
    Dequantise,
    Cast {
        from: Element,
        to: Element,
    },
    Concat,
    Slice {
        start: usize,
    },
    MinHash(MinHash),
    SimHash {
        keys: Vec<u64>,
    },
    FeatureHash {
        key: u64,
    },
    Bucketise {
        boundaries: Vec<f32>,
    },
    /// To an output of the graph that is `f16`: it lies in the buffer of that number.
    Narrow {
        buffer: usize,
    },
}

/// What is done to vectors in place.
pub(super) enum RowOp {
    Add(ValueId),
    AddBias(Vec<f32>),
    Activate(Activation),
    LayerNorm { gamma: Vec<f32>, beta: Vec<f32>, epsilon: f32 },
    Softmax,
    L2Normalise { epsilon: f32 },
    Standardise { mean: Vec<f32>, deviation: Vec<f32> },
}

impl Step {
    /// All values that it reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = ValueId> {
        let added = self.then.iter().filter_map(|op| match op {
            RowOp::Add(other) => Some(*other),
            _ => None,
        });
        self.inputs.iter().copied().chain(added)
    }

    /// Bytes of weights that it holds.
    pub(super) fn weight_bytes(&self) -> usize {
        let own = match &self.kind {
            Kind::Gather { table } | Kind::Positions { table } => table.len(),
            Kind::MatMul { matrix, .. } => matrix.bytes(),
            _ => 0,
        };
        let then = self.then.iter().map(|op| match op {
            RowOp::AddBias(bias) => size_of_val(&bias[..]),
            RowOp::LayerNorm { gamma, .. } => 2 * size_of_val(&gamma[..]),
            RowOp::Standardise { mean, .. } => 2 * size_of_val(&mean[..]),
            _ => 0,
        });
        own + then.sum::<usize>()
    }

    /// Runs it over a chunk.
    pub(super) fn run(&self, isa: Isa, view: &View<'_>, scratch: &mut AttentionScratch) {
        self.make(isa, view, scratch);
        if !self.then.is_empty() || self.rounds {
            self.follow(isa, view);
        }
    }

    fn make(&self, isa: Isa, view: &View<'_>, scratch: &mut AttentionScratch) {
        let input = self.inputs.first().copied().unwrap_or(ValueId(0));
        let output = self.outputs.first().copied().unwrap_or(input);
        match &self.kind {
            Kind::Copy => view.write(output).copy_from_slice(view.read::<f32>(input)),
            Kind::Widen { buffer } => {
                elements::from_f16(view.read_halves(*buffer, output), view.write(output));
            }
            Kind::Gather { table } => {
                let width = view.width(output) / view.width(input);
                elements::gather(table.typed_data(), width, view.read(input), view.write(output));
            }
            Kind::Positions { table } => {
                let table = table.typed_data();
                elements::positions(table, view.width(output), view.offsets(input), view.write(output));
            }
            Kind::MatMul { matrix, activation } => {
                product(isa, view.read(input), matrix, *activation, view.write(output));
            }
            Kind::Attention { heads, causal } => {
                let attend = Attend {
                    query: view.read(input),
                    key: view.read(self.inputs[1]),
                    value: view.read(self.inputs[2]),
                    width: view.width(input),
                    heads: *heads,
                    causal: *causal,
                };
                attention(isa, attend, view.offsets(input), view.write(output), scratch);
            }
            Kind::Pool(pooling) => {
                let (width, offsets) = (view.width(input), view.offsets(input));
                pool::pool(isa, *pooling, view.read(input), width, offsets, view.write(output));
            }
            Kind::Quantise { normalise } => {
                let scales = view.write(self.outputs[1]);
                let last = view.last(input);
                quantise::quantise(isa, view.read(input), last, *normalise, view.write(output), scales);
            }
            Kind::Dequantise => {
                let scales = view.read(self.inputs[1]);
                let last = view.last(input);
                quantise::dequantise(isa, view.read(input), scales, last, view.write(output));
            }
            Kind::Cast { from, to } => cast(view, (input, *from), (output, *to)),
            Kind::Concat => self.concat(view, output),
            Kind::Slice { start } => {
                let (from, to) = (view.bytes_of_last(input), view.bytes_of_last(output));
                let element = to / view.last(output);
                elements::copy_columns(
                    (view.read_bytes(input), from, start * element),
                    (view.write_bytes(output), to, 0),
                    to,
                );
            }
            Kind::MinHash(_) | Kind::SimHash { .. } | Kind::FeatureHash { .. } => {
                self.hash(isa, view, input, output);
            }
            Kind::Bucketise { boundaries } => {
                elements::bucketise(boundaries, view.read(input), view.write(output));
            }
            Kind::Narrow { buffer } => {
                elements::to_f16(view.read(input), view.write_halves(*buffer, input));
            }
        }
    }

    fn hash(&self, isa: Isa, view: &View<'_>, input: ValueId, output: ValueId) {
        let (tokens, offsets) = (view.read(input), view.offsets(input));
        match &self.kind {
            Kind::MinHash(hashes) => min_hashes(isa, hashes, tokens, offsets, view.write(output)),
            Kind::SimHash { keys } => sim_hashes(isa, keys, tokens, offsets, view.write(output)),
            Kind::FeatureHash { key } => {
                feature_hashes(view.width(output), *key, tokens, offsets, view.write(output));
            }
            _ => {}
        }
    }

    fn concat(&self, view: &View<'_>, output: ValueId) {
        let stride = view.bytes_of_last(output);
        let mut start = 0;
        for input in &self.inputs {
            let bytes = view.bytes_of_last(*input);
            elements::copy_columns(
                (view.read_bytes(*input), bytes, 0),
                (view.write_bytes(output), stride, start),
                bytes,
            );
            start += bytes;
        }
    }

    /// The row ops, block by block.
    fn follow(&self, isa: Isa, view: &View<'_>) {
        let output = self.outputs[0];
        let last = view.last(output);
        let block = (BLOCK_ELEMENTS / last).max(1) * last;
        for (index, rows) in view.write::<f32>(output).chunks_mut(block).enumerate() {
            for op in &self.then {
                op.apply(isa, view, rows, index * block, last);
            }
            if self.rounds {
                elements::round_to_f16(rows);
            }
        }
    }
}

impl RowOp {
    /// Applies it to vectors of `last`, the first of which begins at element `first` of the value.
    fn apply(&self, isa: Isa, view: &View<'_>, rows: &mut [f32], first: usize, last: usize) {
        match self {
            RowOp::Add(other) => {
                let length = rows.len();
                rows::add(isa, rows, &view.read::<f32>(*other)[first..first + length]);
            }
            RowOp::AddBias(bias) => rows::add_bias(isa, rows, bias),
            RowOp::Activate(activation) => rows::activate(isa, rows, *activation),
            RowOp::LayerNorm { gamma, beta, epsilon } => rows::layer_norm(isa, rows, gamma, beta, *epsilon),
            RowOp::Softmax => rows::softmax(isa, rows, last),
            RowOp::L2Normalise { epsilon } => rows::l2_normalise(isa, rows, last, *epsilon),
            RowOp::Standardise { mean, deviation } => rows::standardise(isa, rows, mean, deviation),
        }
    }
}

/// Floats of either kind are `f32` between steps; that one is `f16` only shows in its rounding.
fn cast(view: &View<'_>, (input, from): (ValueId, Element), (output, to): (ValueId, Element)) {
    match (from, to) {
        (Element::F32 | Element::F16, Element::F32 | Element::F16) => {
            view.write(output).copy_from_slice(view.read::<f32>(input));
        }
        (Element::F32 | Element::F16, Element::I8) => elements::to_i8(view.read(input), view.write(output)),
        (Element::F32 | Element::F16, _) => elements::to_i32(view.read(input), view.write(output)),
        (Element::I8, Element::F32 | Element::F16) => {
            elements::from_i8(view.read(input), view.write(output));
        }
        (Element::I8, Element::I32) => elements::i8_to_i32(view.read(input), view.write(output)),
        (Element::I32, Element::F32) => elements::from_i32(view.read(input), view.write(output)),
        (Element::I32, Element::F16) => elements::from_i32_as_f16(view.read(input), view.write(output)),
        (Element::I32, Element::I8) => elements::i32_to_i8(view.read(input), view.write(output)),
        // The same on both sides; the builder refuses i64.
        _ => view.write_bytes(output).copy_from_slice(view.read_bytes(input)),
    }
}
