//! The ops that are steps of their own: products, attention, searches, hashes.

use super::kernel::Kernel;
use super::kernel_entry::{
    AttentionKind, AttentionShape, HeadPlace, SearchShape, feature_hash, min_hash, sim_hash,
};
use super::kernel_row::{RowKernel, Space, THREADS};
use super::lower::Lowering;
use super::program::{
    Argument, Blocks, BufferId, Constant, Count, Epilogue, Gemm, Launch, ReferenceSlot, ReferenceSpec, Size,
    Step,
};
use super::scan::{SCORES_BUFFERS, SCORES_MAX, Scan};
use crate::graph::Node;
use crate::op::{Activation, Metric, Op, ReferenceId, ValueId, WeightId};
use crate::{Element, Graph, hashing};

/// Queries that a block of attention has: `QUERIES` and `MMA_QUERIES` of the sources.
const ATTENTION_QUERIES: usize = 32;

/// The products that make one attention's query, key and value of the same input: done as one.
#[derive(Clone, Copy, Debug)]
pub(super) struct MergedProducts {
    products: [usize; 3],
    attention: usize,
    buffer: Option<BufferId>,
}

/// Finds them: three products of one value, alike in having a bias, without an activation, that
/// nobody else reads.
pub(super) fn merged_products(graph: &Graph, needed: &[bool]) -> Vec<MergedProducts> {
    let nodes = graph.nodes();
    let readers = |value: ValueId| {
        let of_nodes =
            nodes.iter().zip(needed).filter(|(_, needed)| **needed).flat_map(|(node, _)| &node.inputs);
        of_nodes.chain(graph.outputs().iter().map(|(_, value)| value)).filter(|read| **read == value).count()
    };
    let product = |value: ValueId| {
        let index = nodes.iter().position(|node| node.outputs.contains(&value))?;
        match nodes[index].op {
            Op::MatMul { bias, activation: None, .. } if readers(value) == 1 => {
                Some((index, (nodes[index].inputs[0], bias.is_some())))
            }
            _ => None,
        }
    };
    let mut merged = Vec::new();
    for (attention, node) in nodes.iter().enumerate() {
        if !needed[attention] || !matches!(node.op, Op::Attention { .. }) {
            continue;
        }
        if let (Some(q), Some(k), Some(v)) =
            (product(node.inputs[0]), product(node.inputs[1]), product(node.inputs[2]))
            && q.1 == k.1
            && q.1 == v.1
        {
            merged.push(MergedProducts { products: [q.0, k.0, v.0], attention, buffer: None });
        }
    }
    merged
}

impl Lowering<'_> {
    pub(super) fn matmul(
        &mut self,
        index: usize,
        node: &Node,
        weight: WeightId,
        bias: Option<WeightId>,
        activation: Option<Activation>,
    ) {
        if let Some(at) = self.merged.iter().position(|merged| merged.products.contains(&index)) {
            if self.merged[at].buffer.is_none() {
                self.merged[at].buffer = Some(self.merged_matmul(self.merged[at].products));
            }
            return;
        }
        let out = node.outputs[0];
        let element = self.graph.value(out).element;
        let by_library = activation == Some(Activation::GeluTanh) && element == Element::F16;
        let epilogue = if by_library { Epilogue::GeluTanh } else { Epilogue::None };
        let bias: Vec<WeightId> = bias.into_iter().collect();
        let buffer = self.gemm(node.inputs[0], &[weight], &bias, epilogue, &[out]);
        if let Some(activation) = activation
            && !by_library
        {
            let ty = self.graph.value(out);
            let id = self.new_group(self.space(ty));
            let group = self.group(id, "activate");
            let sum = group.load(Argument::Buffer(buffer), element, ty.last(), 0);
            let register = group.activate(sum, activation);
            self.made(id, out, register);
        }
    }

    fn merged_matmul(&mut self, products: [usize; 3]) -> BufferId {
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for index in products {
            if let Op::MatMul { weight, bias, .. } = self.graph.nodes()[index].op {
                weights.push(weight);
                biases.extend(bias);
            }
        }
        let input = self.graph.nodes()[products[0]].inputs[0];
        self.gemm(input, &weights, &biases, Epilogue::None, &[])
    }

    fn gemm(
        &mut self,
        input: ValueId,
        weights: &[WeightId],
        biases: &[WeightId],
        epilogue: Epilogue,
        makes: &[ValueId],
    ) -> BufferId {
        let ty = self.graph.value(input);
        let (element, k, m) = (ty.element, ty.last(), self.count(ty));
        let m_each = ty.width() / k;
        let n: usize = weights.iter().map(|weight| self.graph.weight(*weight).dims[0]).sum();
        let input = self.buffer_of(input);
        let out = self.buffer(Size::of(m, m_each * n * element.bytes()));
        let bias = (!biases.is_empty())
            .then(|| self.constant(Constant::Weights { weights: biases.to_vec(), element }));
        let weight = self.constant(Constant::Weights { weights: weights.to_vec(), element });
        let makes: Vec<(ValueId, BufferId)> = makes.iter().map(|value| (*value, out)).collect();
        self.step(Step::Gemm(Gemm { input, weight, bias, out, m, m_each, n, k, element, epilogue }), &makes);
        out
    }

    pub(super) fn attention(&mut self, index: usize, node: &Node, heads: usize, causal: bool) {
        let out_value = node.outputs[0];
        let ty = self.graph.value(out_value);
        let (count, width, element) = (self.count(ty), ty.last(), ty.element);
        let merged =
            self.merged.iter().find(|merged| merged.attention == index).and_then(|merged| merged.buffer);
        let (buffers, places) = match merged {
            Some(buffer) => {
                let place = |part: usize| HeadPlace { stride: 3 * width, offset: part * width };
                ([buffer; 3], [place(0), place(1), place(2)])
            }
            None => {
                let [q, k, v] = [node.inputs[0], node.inputs[1], node.inputs[2]];
                let buffers = [self.buffer_of(q), self.buffer_of(k), self.buffer_of(v)];
                (buffers, [HeadPlace { stride: width, offset: 0 }; 3])
            }
        };
        let shape = AttentionShape { element, heads, d: width / heads, causal, places };
        let out = self.buffer(self.size(ty));
        let mut arguments: Vec<Argument> = buffers.into_iter().map(Argument::Buffer).collect();
        arguments.extend([Argument::Buffer(out), self.offsets_of(ty)]);
        let grid = match (shape.kind(), self.axis_of(ty)) {
            (AttentionKind::Mma | AttentionKind::Tiled, Some(axis)) => [
                Blocks { count: Count::Rows, times: 1, over: 1 },
                Blocks { count: Count::Longest(axis), times: 1, over: ATTENTION_QUERIES },
                Blocks { count: Count::One, times: heads, over: 1 },
            ],
            _ => {
                arguments.extend([Argument::Count(Count::Rows), Argument::Count(count)]);
                [Blocks { count, times: heads, over: THREADS as usize / 32 }, Blocks::ONE, Blocks::ONE]
            }
        };
        let launch = Launch { kernel: self.kernel(shape.kernel()), grid, block: shape.block(), arguments };
        self.step(Step::Launch(launch), &[(out_value, out)]);
    }

    pub(super) fn top_k(&mut self, node: &Node, reference: ReferenceId, metric: Metric, k: usize) {
        let query = node.inputs[0];
        let ty = self.graph.value(query);
        let shape = SearchShape { element: ty.element, metric, width: ty.last(), k };
        let queries = self.buffer_of(query);
        let slot = self.reference(reference, &shape);
        let squares = self.buffer(Size::of(Count::Rows, size_of::<f32>()));
        let (queries, prepare) = self.queries(queries, squares, slot, &shape);
        self.step(Step::Launch(prepare), &[]);
        let each = SCORES_BUFFERS * SCORES_MAX * size_of::<f32>();
        let scores = self.buffer(Size { count: Count::One, each, plus: 0 });
        let lists = self.buffer(Size::of(Count::ScanLists, k * size_of::<u64>()));
        let [ids, nearest] = [node.outputs[0], node.outputs[1]];
        let out_ids = self.buffer(self.size(self.graph.value(ids)));
        let out_scores = self.buffer(self.size(self.graph.value(nearest)));
        let blocks = |count: Count| Blocks { count, times: 1, over: 1 };
        let select = Launch {
            kernel: self.kernel(shape.select()),
            grid: [blocks(Count::QueryCount), blocks(Count::ScanSplits), Blocks::ONE],
            block: THREADS,
            arguments: vec![
                Argument::Buffer(scores),
                Argument::Buffer(queries),
                Argument::Buffer(squares),
                Argument::ReferenceVectors(slot),
                Argument::ReferenceNorms(slot),
                Argument::Buffer(lists),
                Argument::Count(Count::QueryFirst),
                Argument::Count(Count::TileFirst),
                Argument::Count(Count::TileCount),
                Argument::Count(Count::ScanSplits),
            ],
        };
        let finish = Launch {
            kernel: self.kernel(shape.finish()),
            grid: [blocks(Count::Rows), Blocks::ONE, Blocks::ONE],
            block: THREADS,
            arguments: vec![
                Argument::Buffer(lists),
                Argument::Buffer(queries),
                Argument::ReferenceVectors(slot),
                Argument::ReferenceIds(slot),
                Argument::Buffer(out_ids),
                Argument::Buffer(out_scores),
                Argument::Count(Count::ReferenceRows(slot)),
                Argument::Count(Count::ScanSplits),
            ],
        };
        let (width, element) = (shape.width, shape.element);
        let scan = Scan { reference: slot, queries, scores, width, element, select, finish };
        self.step(Step::Scan(scan), &[(ids, out_ids), (nearest, out_scores)]);
    }

    /// The queries as the search has them, and what makes their squares (and them).
    fn queries(
        &mut self,
        queries: BufferId,
        squares: BufferId,
        slot: ReferenceSlot,
        shape: &SearchShape,
    ) -> (BufferId, Launch) {
        let space = Space { count: Count::Rows, outer: 1, n: shape.width };
        let (from, to) = (Argument::Buffer(queries), Argument::Buffer(squares));
        if !shape.is_centred() {
            return (queries, self.squares(space, shape.element, from, to));
        }
        let centred = self.buffer(Size::of(Count::Rows, shape.width * shape.element.bytes()));
        let mut group = RowKernel::new(space);
        group.notes("centre");
        let query = group.load(from, shape.element, space.n, 0);
        let query = group.subtract(query, Argument::ReferenceCentre(slot));
        group.store(query, Argument::Buffer(centred), space.n, 0);
        let squares = group.squares(query);
        group.store(squares, to, 1, 0);
        (centred, group.finish(|kernel| self.kernel(kernel)))
    }

    fn reference(&mut self, reference: ReferenceId, shape: &SearchShape) -> ReferenceSlot {
        let (width, element, is_centred) = (shape.width, shape.element, shape.is_centred());
        let same = |known: &ReferenceSpec| {
            (known.reference, known.element, known.is_centred) == (reference, element, is_centred)
        };
        if let Some(known) = self.references.iter().position(same) {
            return ReferenceSlot(known);
        }
        let slot = ReferenceSlot(self.references.len());
        let space = Space { count: Count::ReferenceRows(slot), outer: 1, n: width };
        let (vectors, squares) = (Argument::ReferenceVectors(slot), Argument::ReferenceNorms(slot));
        let prepare = self.squares(space, element, vectors, squares);
        self.references.push(ReferenceSpec { reference, width, element, is_centred, prepare });
        slot
    }

    fn squares(&mut self, space: Space, element: Element, vectors: Argument, out: Argument) -> Launch {
        let mut group = RowKernel::new(space);
        group.notes("squares");
        let vector = group.load(vectors, element, space.n, 0);
        let squares = group.squares(vector);
        group.store(squares, out, 1, 0);
        group.finish(|kernel| self.kernel(kernel))
    }

    pub(super) fn min_hash(&mut self, node: &Node, hashes: usize, seed: u64) {
        let parameters = (0..hashes as u64).flat_map(|index| {
            let (factor, addend) = hashing::min_hash_parameters(seed, index);
            [factor.to_le_bytes(), addend.to_le_bytes()].concat()
        });
        let parameters = Constant::Bytes(parameters.collect());
        let blocks = Blocks { count: Count::Rows, times: hashes, over: THREADS as usize };
        self.hash(node, min_hash(hashes), Some(parameters), blocks, true);
    }

    pub(super) fn sim_hash(&mut self, node: &Node, words: usize, seed: u64) {
        let keys = (0..words as u64).flat_map(|word| hashing::token_key(seed, word).to_le_bytes());
        let keys = Constant::Bytes(keys.collect());
        let blocks = Blocks { count: Count::Rows, times: words, over: THREADS as usize / 32 };
        self.hash(node, sim_hash(words), Some(keys), blocks, true);
    }

    pub(super) fn feature_hash(&mut self, node: &Node, width: usize, seed: u64) {
        let kernel = feature_hash(width, hashing::token_key(seed, 0));
        self.hash(node, kernel, None, Blocks { count: Count::Rows, times: 1, over: 1 }, false);
    }

    fn hash(&mut self, node: &Node, kernel: Kernel, table: Option<Constant>, blocks: Blocks, rows: bool) {
        let out_value = node.outputs[0];
        let tokens = self.buffer_of(node.inputs[0]);
        let out = self.buffer(self.size(self.graph.value(out_value)));
        let mut arguments = vec![Argument::Buffer(tokens), self.offsets_of(self.graph.value(node.inputs[0]))];
        arguments.extend(table.map(|table| Argument::Constant(self.constant(table))));
        arguments.push(Argument::Buffer(out));
        if rows {
            arguments.push(Argument::Count(Count::Rows));
        }
        let grid = [blocks, Blocks::ONE, Blocks::ONE];
        let launch = Launch { kernel: self.kernel(kernel), grid, block: THREADS, arguments };
        self.step(Step::Launch(launch), &[(out_value, out)]);
    }
}
