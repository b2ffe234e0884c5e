//! The ops that work on vectors one by one, in groups.

use super::kernel_row::Register;
use super::lower::{GroupId, Lowering, Read, Waiting};
use super::program::{Argument, Constant};
use crate::Element;
use crate::graph::Node;
use crate::op::{Op, Pooling, ValueId};

impl Lowering<'_> {
    /// An op whose output has the space of its first input: joins its group.
    pub(super) fn row_op(&mut self, node: &Node) {
        let space = self.space(self.graph.value(node.inputs[0]));
        let mut reads: Vec<Read> = node.inputs.iter().copied().map(Read::Vectors).collect();
        if matches!(node.op, Op::Dequantise { .. }) {
            reads[1] = Read::Scalars(node.inputs[1]);
        }
        let id = self.group_for(&reads, space);
        let inputs: Vec<Register> = reads
            .iter()
            .map(|read| match read {
                Read::Vectors(value) => self.read(id, *value),
                Read::Scalars(value) => self.read_scalar(id, *value),
            })
            .collect();
        let made = self.emit(id, node, &inputs);
        for (value, register) in node.outputs.iter().zip(made) {
            self.made(id, *value, register);
        }
    }

    fn emit(&mut self, id: GroupId, node: &Node, inputs: &[Register]) -> Vec<Register> {
        let constants = self.constants_of(&node.op);
        let group = self.group(id, node.op.name());
        let a = inputs[0];
        vec![match &node.op {
            Op::Add => group.add(a, inputs[1]),
            Op::AddBias { .. } => group.add_bias(a, constants[0]),
            Op::Activate(activation) => group.activate(a, *activation),
            Op::LayerNorm { epsilon, .. } => group.layer_norm(a, constants[0], constants[1], *epsilon),
            Op::Softmax => group.softmax(a),
            Op::L2Normalise { epsilon } => group.l2_normalise(a, *epsilon),
            Op::Cast { to } => group.cast(a, *to),
            Op::Bucketise { boundaries } => group.bucketise(a, constants[0], boundaries.len()),
            Op::Standardise { .. } => group.standardise(a, constants[0], constants[1]),
            Op::Dequantise { to } => group.dequantise(a, inputs[1], *to),
            Op::Quantise => {
                let (values, scales) = group.quantise(a);
                return vec![values, scales];
            }
            // Steps of their own, and what waits: `Lowering::node` has taken them.
            _ => return Vec::new(),
        }]
    }

    fn constants_of(&mut self, op: &Op) -> Vec<Argument> {
        match op {
            Op::AddBias { bias } => vec![self.weight(*bias, Element::F32)],
            Op::LayerNorm { gamma, beta, .. } => {
                vec![self.weight(*gamma, Element::F32), self.weight(*beta, Element::F32)]
            }
            Op::Standardise { mean, deviation } => {
                vec![self.weight(*mean, Element::F32), self.weight(*deviation, Element::F32)]
            }
            Op::Bucketise { boundaries } => {
                let bytes = boundaries.iter().flat_map(|boundary| boundary.to_le_bytes()).collect();
                vec![Argument::Constant(self.constant(Constant::Bytes(bytes)))]
            }
            _ => Vec::new(),
        }
    }

    /// Emits what has waited to be asked for.
    pub(super) fn make_waiting(&mut self, id: GroupId, waiting: Waiting, input: ValueId) -> Register {
        let from = Argument::Buffer(self.buffer_of(input));
        let ty = self.graph.value(input);
        match waiting {
            Waiting::Gather { table, element } => {
                let table = self.weight(table, element);
                self.group(id, "gather").gather(table, from, element)
            }
            Waiting::Positions { table, element } => {
                let (table, offsets) = (self.weight(table, element), self.offsets_of(ty));
                self.group(id, "positions").positions(table, offsets, element)
            }
            Waiting::Pool(pooling) => {
                let offsets = self.offsets_of(ty);
                let function = match pooling {
                    Pooling::Mean => "pool_mean",
                    Pooling::Cls => "pool_cls",
                    Pooling::Max => "pool_max",
                };
                self.group(id, function).pool(function, from, offsets, ty.element)
            }
            Waiting::Slice { start } => self.group(id, "slice").load(from, ty.element, ty.last(), start),
        }
    }
}
