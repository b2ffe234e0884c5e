//! From a graph to a program.
//!
//! Nodes are taken in their order. What works on vectors one by one joins a *group*, which becomes
//! one kernel (`kernel_row`); a product, attention, a search and a hash are steps of their own
//! (`lower_steps`). A value that a group has in registers is stored only once somebody outside asks
//! for it. What reads memory and computes nothing (embedding look-ups, slices, pooling) waits until
//! somebody asks, and is then done in the asking group.
//!
//! The rule it lives by: a node joins a group only if all it reads is made in that group or by an
//! earlier step, so that steps stay in an order in which they can be run.

use std::collections::BTreeMap;

use super::kernel::Kernel;
use super::kernel_row::{Register, RowKernel, Space};
use super::lower_steps::{MergedProducts, merged_products};
use super::program::{
    Argument, Axis, AxisId, BufferId, BufferSpec, Constant, ConstantId, Count, KernelId, Launch, Port,
    Program, ReferenceSpec, Size, Step,
};
use crate::graph::Node;
use crate::op::{Op, Pooling, ValueId, WeightId};
use crate::{Element, Graph, Result, TensorType};

/// Lowers a graph.
///
/// # Errors
/// When a vector of the graph has more elements than a kernel can count (2^31).
pub fn lower(graph: &Graph) -> Result<Program> {
    if let Some(value) = graph.values().iter().find(|value| i32::try_from(value.width()).is_err()) {
        return Err(crate::Error::graph("graph", format!("{value} is too wide for a device")));
    }
    let needed = needed(graph);
    let mut lowering = Lowering::new(graph, &needed);
    for (index, node) in graph.nodes().iter().enumerate().filter(|(index, _)| needed[*index]) {
        lowering.node(index, node);
    }
    Ok(lowering.finish())
}

/// Which nodes the outputs stand on.
fn needed(graph: &Graph) -> Vec<bool> {
    let mut wanted = vec![false; graph.values().len()];
    for (_, value) in graph.outputs() {
        wanted[value.0 as usize] = true;
    }
    let mut needed = vec![false; graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate().rev() {
        if node.outputs.iter().any(|output| wanted[output.0 as usize]) {
            needed[index] = true;
            node.inputs.iter().for_each(|input| wanted[input.0 as usize] = true);
        }
    }
    needed
}

/// A group, by its place in [`Lowering::groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupId(usize);

/// What reads memory, computes nothing, and waits until a group asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiting {
    Gather { table: WeightId, element: Element },
    Positions { table: WeightId, element: Element },
    Pool(Pooling),
    Slice { start: usize },
}

/// Where a value is.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Its place in the order: after that it is there; none where it is an input's.
    ready: Option<usize>,
    register: Option<(GroupId, Register)>,
    buffer: Option<BufferId>,
    /// What makes it of which value as soon as somebody asks.
    waits: Option<(Waiting, ValueId)>,
}

/// How an op reads a value: as vectors of its group, or as one number per vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Vectors(ValueId),
    Scalars(ValueId),
}

/// A step to be: a group is open until the end.
#[derive(Debug)]
enum Draft {
    Group(GroupId),
    Step(Box<Step>),
}

/// A graph on its way.
pub(super) struct Lowering<'graph> {
    pub(super) graph: &'graph Graph,
    pub(super) references: Vec<ReferenceSpec>,
    /// Products whose outputs one product makes, and where: for each attention.
    pub(super) merged: Vec<MergedProducts>,
    axes: Vec<Axis>,
    places: Vec<Place>,
    inputs: Vec<Port>,
    order: Vec<Draft>,
    groups: Vec<(usize, RowKernel)>,
    loaded: BTreeMap<(GroupId, ValueId), Register>,
    buffers: Vec<Size>,
    constants: Vec<Constant>,
    kernels: Vec<Kernel>,
}

impl<'graph> Lowering<'graph> {
    fn new(graph: &'graph Graph, needed: &[bool]) -> Lowering<'graph> {
        let mut lowering = Lowering {
            graph,
            references: Vec::new(),
            merged: merged_products(graph, needed),
            axes: Vec::new(),
            places: vec![Place::default(); graph.values().len()],
            inputs: Vec::new(),
            order: Vec::new(),
            groups: Vec::new(),
            loaded: BTreeMap::new(),
            buffers: Vec::new(),
            constants: Vec::new(),
            kernels: Vec::new(),
        };
        for (index, input) in graph.inputs().iter().enumerate() {
            let ty = graph.value(input.value);
            if ty.axis.is_some() {
                let size = Size { count: Count::Rows, each: size_of::<i32>(), plus: size_of::<i32>() };
                let offsets = lowering.buffer(size);
                lowering.axes.push(Axis { name: input.name.clone(), input: index, offsets });
            }
            let buffer = lowering.buffer(lowering.size(ty));
            lowering.places[input.value.0 as usize].buffer = Some(buffer);
            let port = lowering.port(&input.name, input.value, buffer);
            lowering.inputs.push(port);
        }
        lowering
    }

    fn port(&self, name: &std::sync::Arc<str>, value: ValueId, buffer: BufferId) -> Port {
        let ty = self.graph.value(value);
        let axis = self.axis_of(ty);
        Port { name: name.clone(), buffer, element: ty.element, axis, dims: ty.dims.clone() }
    }

    fn node(&mut self, index: usize, node: &Node) {
        match &node.op {
            Op::Gather { table, element } => {
                self.waits(node, Waiting::Gather { table: *table, element: *element });
            }
            Op::Positions { table, element } => {
                self.waits(node, Waiting::Positions { table: *table, element: *element });
            }
            Op::Slice { start, .. } => self.waits(node, Waiting::Slice { start: *start }),
            Op::Pool(pooling) => self.waits(node, Waiting::Pool(*pooling)),
            Op::MatMul { weight, bias, activation } => self.matmul(index, node, *weight, *bias, *activation),
            Op::Attention { heads, causal } => self.attention(index, node, *heads, *causal),
            Op::TopK { reference, metric, k } => self.top_k(node, *reference, *metric, *k),
            Op::MinHash { hashes, seed } => self.min_hash(node, *hashes, *seed),
            Op::SimHash { words, seed } => self.sim_hash(node, *words, *seed),
            Op::FeatureHash { width, seed } => self.feature_hash(node, *width, *seed),
            Op::Concat => self.concat(node),
            _ => self.row_op(node),
        }
    }

    fn waits(&mut self, node: &Node, waiting: Waiting) {
        self.places[node.outputs[0].0 as usize].waits = Some((waiting, node.inputs[0]));
    }

    fn finish(mut self) -> Program {
        let mut outputs = Vec::new();
        for (name, value) in self.graph.outputs() {
            let buffer = self.buffer_of(*value);
            outputs.push(self.port(name, *value, buffer));
        }
        let groups = std::mem::take(&mut self.groups);
        let mut launches: Vec<Option<Launch>> = Vec::new();
        for (_, group) in groups {
            let has_store = group.has_store();
            launches.push(has_store.then(|| group.finish(|kernel| self.kernel(kernel))));
        }
        let mut steps = Vec::new();
        for draft in std::mem::take(&mut self.order) {
            match draft {
                Draft::Step(step) => steps.push(*step),
                Draft::Group(id) => steps.extend(launches[id.0].take().map(Step::Launch)),
            }
        }
        let mut program = Program {
            axes: self.axes,
            inputs: self.inputs,
            outputs,
            buffers: self.buffers.iter().map(|size| BufferSpec { size: *size, live: 0..=0 }).collect(),
            constants: self.constants,
            references: self.references,
            kernels: self.kernels,
            steps,
        };
        program.find_lives();
        program
    }

    /// Concatenation: each part is stored in its place by the group that has it.
    fn concat(&mut self, node: &Node) {
        let out = node.outputs[0];
        let ty = self.graph.value(out);
        let (buffer, stride) = (self.buffer(self.size(ty)), ty.last());
        let (mut offset, mut ready) = (0, None);
        for input in &node.inputs {
            let part = self.graph.value(*input);
            let id = self.group_for(&[Read::Vectors(*input)], self.space(part));
            let register = self.read(id, *input);
            self.group(id, "concat").store(register, Argument::Buffer(buffer), stride, offset);
            offset += part.last();
            ready = ready.max(Some(self.groups[id.0].0));
        }
        self.places[out.0 as usize] = Place { ready, buffer: Some(buffer), ..Place::default() };
    }

    /// The vectors of a value.
    pub(super) fn space(&self, ty: &TensorType) -> Space {
        Space { count: self.count(ty), outer: ty.width() / ty.last().max(1), n: ty.last() }
    }

    /// What counts a value's tensors.
    pub(super) fn count(&self, ty: &TensorType) -> Count {
        self.axis_of(ty).map_or(Count::Rows, Count::Tokens)
    }

    pub(super) fn axis_of(&self, ty: &TensorType) -> Option<AxisId> {
        let name = ty.axis.as_ref()?;
        self.axes.iter().position(|axis| axis.name == *name).map(AxisId)
    }

    pub(super) fn offsets_of(&self, ty: &TensorType) -> Argument {
        let axis = self.axis_of(ty).map_or(0, |axis| axis.0);
        Argument::Buffer(self.axes[axis].offsets)
    }

    pub(super) fn size(&self, ty: &TensorType) -> Size {
        Size::of(self.count(ty), ty.width() * ty.element.bytes())
    }

    pub(super) fn buffer(&mut self, size: Size) -> BufferId {
        self.buffers.push(size);
        BufferId(self.buffers.len() - 1)
    }

    pub(super) fn constant(&mut self, constant: Constant) -> ConstantId {
        let known = self.constants.iter().position(|known| *known == constant);
        ConstantId(known.unwrap_or_else(|| {
            self.constants.push(constant);
            self.constants.len() - 1
        }))
    }

    pub(super) fn weight(&mut self, weight: WeightId, element: Element) -> Argument {
        Argument::Constant(self.constant(Constant::Weights { weights: vec![weight], element }))
    }

    pub(super) fn kernel(&mut self, kernel: Kernel) -> KernelId {
        let known = self.kernels.iter().position(|known| *known == kernel);
        KernelId(known.unwrap_or_else(|| {
            self.kernels.push(kernel);
            self.kernels.len() - 1
        }))
    }

    /// Appends a step that makes these values in these buffers.
    pub(super) fn step(&mut self, step: Step, makes: &[(ValueId, BufferId)]) {
        self.order.push(Draft::Step(Box::new(step)));
        let ready = Some(self.order.len() - 1);
        for (value, buffer) in makes {
            self.places[value.0 as usize] = Place { ready, buffer: Some(*buffer), ..Place::default() };
        }
    }

    /// A group; its kernel's name will say `op`.
    pub(super) fn group(&mut self, id: GroupId, op: &'static str) -> &mut RowKernel {
        let group = &mut self.groups[id.0].1;
        group.notes(op);
        group
    }

    /// A new group, after all steps so far.
    pub(super) fn new_group(&mut self, space: Space) -> GroupId {
        let id = GroupId(self.groups.len());
        self.groups.push((self.order.len(), RowKernel::new(space)));
        self.order.push(Draft::Group(id));
        id
    }

    /// The last group that has one of these values in registers and may read the others, or a new
    /// one.
    pub(super) fn group_for(&mut self, reads: &[Read], space: Space) -> GroupId {
        let registers = reads.iter().filter_map(|read| self.places[read.value().0 as usize].register);
        let mut candidates: Vec<GroupId> = registers.map(|(id, _)| id).collect();
        candidates.sort_unstable();
        let fits = |id: &GroupId| {
            self.groups[id.0].1.space == space && reads.iter().all(|read| self.may_read(*id, *read))
        };
        if let Some(id) = candidates.iter().rev().copied().find(fits) {
            return id;
        }
        // What they are made of comes before the new group.
        for read in reads {
            match (read, self.places[read.value().0 as usize].waits) {
                (Read::Vectors(_), Some((_, input))) => self.buffer_of(input),
                (Read::Scalars(value), _) => self.buffer_of(*value),
                (Read::Vectors(_), None) => continue,
            };
        }
        self.new_group(space)
    }

    fn may_read(&self, id: GroupId, read: Read) -> bool {
        let place = &self.places[read.value().0 as usize];
        match (place.register, place.waits) {
            (Some((at, register)), _) if at == id => register.is_scalar == matches!(read, Read::Scalars(_)),
            // It would be made here, from memory.
            (_, Some((_, input))) => matches!(read, Read::Vectors(_)) && self.is_before(id, input),
            _ => self.is_before(id, read.value()),
        }
    }

    fn is_before(&self, id: GroupId, value: ValueId) -> bool {
        let place = &self.places[value.0 as usize];
        place.waits.is_none() && place.ready.is_none_or(|ready| ready < self.groups[id.0].0)
    }

    /// A value in a group's registers; loaded, or made there, if it must be.
    pub(super) fn read(&mut self, id: GroupId, value: ValueId) -> Register {
        let place = self.places[value.0 as usize];
        if let Some((at, register)) = place.register
            && at == id
        {
            return register;
        }
        if let Some(register) = self.loaded.get(&(id, value)) {
            return *register;
        }
        if let Some((waiting, input)) = place.waits {
            let register = self.make_waiting(id, waiting, input);
            self.made(id, value, register);
            return register;
        }
        let buffer = Argument::Buffer(self.buffer_of(value));
        let ty = self.graph.value(value);
        let register = self.groups[id.0].1.load(buffer, ty.element, ty.last(), 0);
        self.loaded.insert((id, value), register);
        register
    }

    /// One number per vector of a group.
    pub(super) fn read_scalar(&mut self, id: GroupId, value: ValueId) -> Register {
        match self.places[value.0 as usize].register {
            Some((at, register)) if at == id => register,
            _ => {
                let buffer = Argument::Buffer(self.buffer_of(value));
                self.groups[id.0].1.load_scalar(buffer)
            }
        }
    }

    /// Notes that a group has a value in a register.
    pub(super) fn made(&mut self, id: GroupId, value: ValueId, register: Register) {
        let ready = Some(self.groups[id.0].0);
        let place = Place { ready, register: Some((id, register)), ..Place::default() };
        self.places[value.0 as usize] = place;
    }

    /// A value in memory; stored by the group that has it, or made, if it must be.
    pub(super) fn buffer_of(&mut self, value: ValueId) -> BufferId {
        let place = self.places[value.0 as usize];
        if let Some(buffer) = place.buffer {
            return buffer;
        }
        let ty = self.graph.value(value);
        let (id, register) = place.register.unwrap_or_else(|| {
            let id = self.group_for(&[Read::Vectors(value)], self.space(ty));
            (id, self.read(id, value))
        });
        let buffer = self.buffer(self.size(ty));
        self.groups[id.0].1.store(register, Argument::Buffer(buffer), ty.last(), 0);
        self.places[value.0 as usize].buffer = Some(buffer);
        buffer
    }
}

impl Read {
    fn value(self) -> ValueId {
        match self {
            Read::Vectors(value) | Read::Scalars(value) => value,
        }
    }
}

impl Program {
    fn find_lives(&mut self) {
        let mut lives: Vec<Option<(usize, usize)>> = vec![None; self.buffers.len()];
        let mut touch = |buffer: BufferId, step: usize| {
            let (first, last) = lives[buffer.0].unwrap_or((step, step));
            lives[buffer.0] = Some((first.min(step), last.max(step)));
        };
        for port in &self.inputs {
            touch(port.buffer, 0);
        }
        for axis in &self.axes {
            touch(axis.offsets, 0);
        }
        for (index, step) in self.steps.iter().enumerate() {
            step.buffers().into_iter().for_each(|buffer| touch(buffer, index));
        }
        for port in &self.outputs {
            touch(port.buffer, self.steps.len());
        }
        for (buffer, life) in self.buffers.iter_mut().zip(lives) {
            let (first, last) = life.unwrap_or((0, 0));
            buffer.live = first..=last;
        }
    }
}
