//! The CUDA backend without a device: the same programs and the same kernel text, compiled by the
//! host's compiler under a small shim, with the library's products done on the CPU. What it computes
//! is what a device would, but for the order within a product and the last bits of `exp` and its
//! like.

#![allow(clippy::panic, reason = "fails the test")]

mod compiler;
mod gemm;
mod memory;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::buffer::{Buffer, OffsetBuffer};
use compiler::Kernels;
use memory::Memory;
use thalweg_tensor::backend::Finished;
use thalweg_tensor::cuda::program::{
    Argument, BufferId, Constant, Counts, Gemm, Launch, ReferenceSpec, Step,
};
use thalweg_tensor::cuda::scan::{Scan, ScanPart};
use thalweg_tensor::cuda::{self, Layout, Program, centre};
use thalweg_tensor::op::ReferenceId;
use thalweg_tensor::{
    Backend, Element, Error, Graph, Limits, Plan, ReferenceMatrix, Result, Tensor, TensorBatch, Weights,
};

/// Runs programs under the shim.
pub struct ShimBackend;

struct ShimPlan {
    graph: Graph,
    program: Program,
    kernels: Kernels,
    constants: Vec<Memory>,
    references: Vec<UploadedReference>,
    finished: VecDeque<TensorBatch>,
}

struct UploadedReference {
    rows: usize,
    vectors: Memory,
    norms: Memory,
    ids: Memory,
    centre: Memory,
}

/// A batch on the "device".
struct Run<'a> {
    plan: &'a mut ShimPlan,
    counts: Counts,
    layout: Layout,
    arena: Memory,
}

impl Backend for ShimBackend {
    fn device(&self) -> String {
        "cuda kernels under the shim".to_owned()
    }

    fn compile(
        &self,
        graph: &Graph,
        weights: &Weights,
        references: &[Arc<ReferenceMatrix>],
        _limits: &Limits,
    ) -> Result<Box<dyn Plan>> {
        weights.check(graph)?;
        let widths = graph.references().iter().map(|reference| reference.width);
        if !widths.eq(references.iter().map(|matrix| matrix.width())) {
            return Err(refused("reference matrices of other widths"));
        }
        let program = cuda::lower(graph)?;
        let kernels = Kernels::compile(&program.kernels);
        let constants = program.constants.iter().map(|constant| uploaded(graph, weights, constant));
        let constants = constants.collect::<Result<_>>()?;
        let mut plan = ShimPlan {
            graph: graph.clone(),
            kernels,
            constants,
            references: Vec::new(),
            finished: VecDeque::new(),
            program,
        };
        for slot in 0..plan.program.references.len() {
            let spec = plan.program.references[slot].clone();
            let uploaded = plan.upload(&spec, &references[spec.reference.0 as usize], slot);
            plan.references.push(uploaded);
        }
        Ok(Box::new(plan))
    }
}

fn refused(reason: &str) -> Error {
    Error::Input { input: "batch".to_owned(), reason: reason.to_owned() }
}

fn uploaded(graph: &Graph, weights: &Weights, constant: &Constant) -> Result<Memory> {
    match constant {
        Constant::Bytes(bytes) => Ok(Memory::of(bytes)),
        Constant::Weights { weights: ids, element } => {
            let mut floats = Vec::new();
            for id in ids {
                floats.extend(weights.to_f32(&graph.weight(*id).name)?);
            }
            Ok(Memory::of(&gemm::stored(&floats, *element)))
        }
    }
}

impl ShimPlan {
    fn upload(&self, spec: &ReferenceSpec, matrix: &ReferenceMatrix, slot: usize) -> UploadedReference {
        let ids: Vec<u8> = matrix.ids().iter().flat_map(|id| id.to_le_bytes()).collect();
        let centre = if spec.is_centred { centre::centre(matrix) } else { vec![0.0; matrix.width()] };
        let mut uploaded = UploadedReference {
            rows: matrix.rows(),
            vectors: Memory::of(&gemm::stored(&centre::centred(matrix.vectors(), &centre), spec.element)),
            norms: Memory::new(matrix.rows() * size_of::<f32>()),
            ids: Memory::of(&ids),
            centre: Memory::of(&gemm::stored(&centre, Element::F32)),
        };
        let mut reference_rows = vec![0; slot + 1];
        reference_rows[slot] = matrix.rows();
        let counts = Counts { reference_rows, ..Counts::default() };
        let arguments: Vec<u64> = spec
            .prepare
            .arguments
            .iter()
            .map(|argument| match argument {
                Argument::ReferenceVectors(_) => uploaded.vectors.address(0),
                Argument::ReferenceNorms(_) => uploaded.norms.address(0),
                Argument::ReferenceIds(_) => uploaded.ids.address(0),
                Argument::ReferenceCentre(_) => uploaded.centre.address(0),
                Argument::Count(count) => counts.get(*count) as u64,
                Argument::Buffer(_) | Argument::Constant(_) => panic!("prepares a reference from elsewhere"),
            })
            .collect();
        self.launch(&spec.prepare, &counts, &arguments);
        uploaded.norms.check();
        uploaded
    }

    fn launch(&self, launch: &Launch, counts: &Counts, arguments: &[u64]) {
        let grid = launch.grid.map(|blocks| blocks.blocks(counts) as u32);
        if !grid.contains(&0) {
            let name = &self.program.kernels[launch.kernel.0].name;
            // SAFETY: the arguments are what the program says that the kernel takes.
            unsafe { self.kernels.launch(name, grid, launch.block, arguments) };
        }
    }

    fn is_of_the_graph(&self, batch: &TensorBatch) -> bool {
        let inputs = self.graph.inputs();
        inputs.len() == batch.tensors.len()
            && inputs.iter().zip(&batch.tensors).all(|(input, tensor)| {
                tensor.is_a(self.graph.value(input.value)) && tensor.rows() == batch.rows
            })
    }

    fn compute(&mut self, batch: &TensorBatch) -> Result<TensorBatch> {
        let offsets: Vec<OffsetBuffer<i32>> = self
            .program
            .axes
            .iter()
            .filter_map(|axis| batch.tensors[axis.input].offsets().cloned())
            .collect();
        let lengths: Vec<&[i32]> = offsets.iter().map(|offsets| &offsets[..]).collect();
        let reference_rows: Vec<usize> = self.references.iter().map(|reference| reference.rows).collect();
        let counts = self.program.counts(batch.rows, &lengths, &reference_rows);
        let layout = self.program.layout(&counts);
        let arena = Memory::new(layout.bytes);
        let mut run = Run { plan: self, counts, layout, arena };
        for (port, tensor) in run.plan.program.inputs.iter().zip(&batch.tensors) {
            assert_eq!(run.plan.program.buffers[port.buffer.0].size.bytes(&run.counts), tensor.data().len());
            run.arena.write(run.layout.offset(port.buffer), tensor.data());
        }
        for (axis, offsets) in run.plan.program.axes.iter().zip(&lengths) {
            let bytes: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
            run.arena.write(run.layout.offset(axis.offsets), &bytes);
        }
        for step in run.plan.program.steps.clone() {
            run.step(&step);
            run.arena.check();
        }
        run.outputs(&offsets)
    }
}

impl Run<'_> {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Launch(launch) => self.launch(launch),
            Step::Gemm(gemm) => self.gemm(gemm),
            Step::Scan(scan) => self.scan(scan),
        }
    }

    fn launch(&mut self, launch: &Launch) {
        let arguments: Vec<u64> = launch.arguments.iter().map(|argument| self.argument(argument)).collect();
        self.plan.launch(launch, &self.counts, &arguments);
    }

    fn argument(&mut self, argument: &Argument) -> u64 {
        match argument {
            Argument::Buffer(buffer) => self.arena.address(self.layout.offset(*buffer)),
            Argument::Constant(constant) => self.plan.constants[constant.0].address(0),
            Argument::ReferenceVectors(slot) => self.plan.references[slot.0].vectors.address(0),
            Argument::ReferenceNorms(slot) => self.plan.references[slot.0].norms.address(0),
            Argument::ReferenceIds(slot) => self.plan.references[slot.0].ids.address(0),
            Argument::ReferenceCentre(slot) => self.plan.references[slot.0].centre.address(0),
            Argument::Count(count) => self.counts.get(*count) as u64,
        }
    }

    fn read(&mut self, buffer: BufferId, first: usize, count: usize, element: Element) -> Vec<f32> {
        let bytes = element.bytes();
        let from = self.layout.offset(buffer) + first * bytes;
        gemm::floats(&self.arena.read(from, count * bytes), element)
    }

    fn gemm(&mut self, gemm: &Gemm) {
        let (m, n, k) = (self.counts.get(gemm.m) * gemm.m_each, gemm.n, gemm.k);
        let bytes = gemm.element.bytes();
        let input = self.read(gemm.input, 0, m * k, gemm.element);
        let mut constant = |id: usize, count: usize| {
            gemm::floats(&self.plan.constants[id].read(0, count * bytes), gemm.element)
        };
        let weight = constant(gemm.weight.0, n * k);
        let bias = gemm.bias.map(|bias| constant(bias.0, n));
        let mut out = gemm::product(&input, &weight, [m, n, k]);
        gemm::finish(&mut out, bias.as_deref(), gemm.epilogue);
        self.arena.write(self.layout.offset(gemm.out), &gemm::stored(&out, gemm.element));
    }

    fn scan(&mut self, scan: &Scan) {
        let vectors = self.plan.references[scan.reference.0].rows;
        for part in Scan::parts(self.counts.rows, vectors) {
            let (width, element) = (scan.width, scan.element);
            let queries =
                self.read(scan.queries, part.query_first * width, part.query_count * width, element);
            let bytes = width * element.bytes();
            let tile = &mut self.plan.references[scan.reference.0].vectors;
            let tile = gemm::floats(&tile.read(part.tile_first * bytes, part.tile_count * bytes), element);
            let scores = gemm::product(&queries, &tile, [part.query_count, part.tile_count, width]);
            self.arena.write(self.layout.offset(scan.scores), &gemm::stored(&scores, Element::F32));
            self.counts.part = part;
            self.launch(&scan.select);
        }
        self.counts.part = ScanPart::default();
        self.launch(&scan.finish);
    }

    fn outputs(mut self, offsets: &[OffsetBuffer<i32>]) -> Result<TensorBatch> {
        let rows = self.counts.rows;
        let mut tensors = Vec::new();
        for port in self.plan.program.outputs.clone() {
            let bytes = self.plan.program.buffers[port.buffer.0].size.bytes(&self.counts);
            let data = Buffer::from(self.arena.read(self.layout.offset(port.buffer), bytes).as_slice());
            tensors.push(match port.axis {
                Some(axis) => Tensor::ragged(port.element, port.dims, offsets[axis.0].clone(), data)?,
                None => Tensor::fixed(port.element, port.dims, rows, data)?,
            });
        }
        Ok(TensorBatch { rows, tensors })
    }
}

impl Plan for ShimPlan {
    fn submit(&mut self, batch: TensorBatch) -> Result<()> {
        if !self.is_of_the_graph(&batch) {
            return Err(refused("is not of the graph's types"));
        }
        let computed = self.compute(&batch)?;
        self.finished.push_back(computed);
        Ok(())
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn finish(&mut self) -> Result<Option<Finished>> {
        let finished = self.finished.pop_front();
        Ok(finished.map(|batch| Finished { batch, device_time: Duration::ZERO, copied_bytes: 0 }))
    }

    fn set_reference(&mut self, reference: ReferenceId, matrix: Arc<ReferenceMatrix>) -> Result<()> {
        if matrix.width() != self.graph.reference(reference).width {
            return Err(refused("reference matrix of another width"));
        }
        for slot in 0..self.program.references.len() {
            let spec = self.program.references[slot].clone();
            if spec.reference == reference {
                self.references[slot] = self.upload(&spec, &matrix, slot);
            }
        }
        Ok(())
    }

    fn device_bytes(&self) -> usize {
        0
    }
}
