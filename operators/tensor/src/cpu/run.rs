//! A batch on its way through a program.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::buffer::{Buffer, MutableBuffer};

use super::aligned::Aligned;
use super::attention::AttentionScratch;
use super::chunk::{Domains, TooLarge, arena_bytes, between_max, cut, next_part};
use super::isa::Isa;
use super::program::{Chunked, Output, Place, Program, Role, Stage, TopK};
use super::top_k::{Ask, Reference, TopKScratch};
use super::view::{Pointer, View};
use super::workers::{Pool, each_of};
use crate::{Error, Graph, Limits, Result, Tensor, TensorBatch};

/// What batches are run with, kept from one to the next.
pub(super) struct Runner {
    pub(super) isa: Isa,
    pub(super) pool: Pool,
    pub(super) limits: Limits,
    pub(super) references: Vec<Reference>,
    shares: Shares,
    workers: Vec<Worker>,
    /// Per buffer, where it is between stages.
    between: Vec<Aligned>,
    bases: Vec<Pointer>,
    chunks: Vec<Range<usize>>,
    top_k: TopKScratch,
}

/// How the plan's memory is shared out.
struct Shares {
    /// The workers' arenas, together.
    workers: usize,
    top_k: usize,
}

impl Shares {
    /// What is not kept for buffers between stages.
    fn of(program: &Program, limits: &Limits) -> Shares {
        let has_between = program.buffers.iter().any(|buffer| buffer.role == Role::Between);
        let rest = limits.memory_bytes_max - if has_between { between_max(limits) } else { 0 };
        let top_k = match program.stages.iter().any(|stage| matches!(stage, Stage::TopK(_))) {
            true => rest / 2,
            false => 0,
        };
        Shares { workers: rest - top_k, top_k }
    }
}

/// What one thread works in.
#[derive(Default)]
struct Worker {
    arena: Aligned,
    values: Vec<Pointer>,
    buffers: Vec<Pointer>,
    slots: Vec<Pointer>,
    tensors: Vec<usize>,
    attention: AttentionScratch,
}

/// Rows of a batch that are under way, and where their buffers begin.
struct Part<'a> {
    rows: Range<usize>,
    domains: &'a Domains<'a>,
    bases: &'a [Pointer],
}

impl Runner {
    pub(super) fn new(
        isa: Isa,
        program: &Program,
        references: Vec<Reference>,
        limits: &Limits,
    ) -> Result<Runner> {
        let pool = Pool::new(limits.threads)?;
        let mut workers = Vec::new();
        workers.resize_with(pool.threads(), Worker::default);
        let mut between = Vec::new();
        between.resize_with(program.buffers.len(), Aligned::default);
        Ok(Runner {
            isa,
            pool,
            limits: limits.clone(),
            references,
            shares: Shares::of(program, limits),
            workers,
            between,
            bases: Vec::new(),
            chunks: Vec::new(),
            top_k: TopKScratch::default(),
        })
    }

    /// Bytes of scratch and references.
    pub(super) fn bytes(&self) -> usize {
        let workers = self.workers.iter().map(|worker| worker.arena.bytes() + worker.attention.bytes());
        let between = self.between.iter().map(Aligned::bytes);
        let references = self.references.iter().map(Reference::bytes);
        workers.chain(between).chain(references).sum::<usize>() + self.top_k.bytes()
    }

    /// Runs a batch that was checked.
    pub(super) fn run(
        &mut self,
        graph: &Graph,
        program: &Program,
        batch: &TensorBatch,
    ) -> Result<TensorBatch> {
        let offsets =
            program.domains.iter().map(|input| input.and_then(|index| batch.tensors[index].offsets()));
        let domains = Domains { offsets: offsets.collect() };
        let mut outputs: Vec<MutableBuffer> = program
            .buffers
            .iter()
            .map(|buffer| match buffer.role {
                Role::Output => {
                    let tensors = domains.tensors(buffer.domain, &(0..batch.rows));
                    uninitialised(tensors * buffer.bytes)
                }
                _ => MutableBuffer::new(0),
            })
            .collect();
        let mut start = 0;
        while start < batch.rows {
            let rows = next_part(&program.buffers, &domains, &self.limits, (start, batch.rows))
                .map_err(out_of_memory)?;
            start = rows.end;
            self.run_part(program, batch, &domains, rows, &mut outputs)?;
        }
        let buffers: Vec<Buffer> = outputs.into_iter().map(Buffer::from).collect();
        gather_outputs(graph, program, batch, &buffers)
    }

    fn run_part(
        &mut self,
        program: &Program,
        batch: &TensorBatch,
        domains: &Domains<'_>,
        rows: Range<usize>,
        outputs: &mut [MutableBuffer],
    ) -> Result<()> {
        self.bases.clear();
        for (index, buffer) in program.buffers.iter().enumerate() {
            let start = domains.start(buffer.domain, rows.start) * buffer.bytes;
            let base = match buffer.role {
                Role::Input(input) => Pointer(batch.tensors[input].data().as_ptr().cast_mut()).at(start),
                Role::Output => Pointer(outputs[index].as_mut_ptr()).at(start),
                Role::Between => {
                    let bytes = domains.tensors(buffer.domain, &rows) * buffer.bytes;
                    self.between[index].reserve(bytes.div_ceil(size_of::<f32>()));
                    Pointer(self.between[index].as_mut_slice().as_mut_ptr().cast())
                }
            };
            self.bases.push(base);
        }
        let bases = std::mem::take(&mut self.bases);
        let part = Part { rows, domains, bases: &bases };
        let mut done = Ok(());
        for stage in &program.stages {
            match stage {
                Stage::Chunked(stage) => done = done.and_then(|()| self.run_chunked(program, stage, &part)),
                Stage::TopK(stage) if done.is_ok() => self.run_top_k(stage, &part),
                Stage::TopK(_) => {}
            }
        }
        self.bases = bases;
        done
    }

    fn run_chunked(&mut self, program: &Program, stage: &Chunked, part: &Part<'_>) -> Result<()> {
        let heads = match stage.head_max {
            0 => 0,
            head => AttentionScratch::bytes_for(head),
        };
        let (threads, bytes_max) = (self.pool.threads(), self.shares.workers);
        let share = (bytes_max / threads).saturating_sub(heads);
        let largest = cut(stage, part.domains, part.rows.clone(), share, &mut self.chunks) + heads;
        if largest > bytes_max {
            let reason = format!("a row needs {largest} bytes of scratch, there may be {bytes_max}");
            return Err(out_of_memory(TooLarge { reason }));
        }
        // A row that takes more than a worker's share is done by fewer of them.
        let at_once = threads.min(bytes_max.checked_div(largest).unwrap_or(threads)).min(self.chunks.len());
        for (index, worker) in self.workers.iter_mut().enumerate() {
            // What an earlier batch left may be more than there is for each now.
            let allowed = match largest - heads <= share {
                true => share,
                false if index < at_once => largest - heads,
                false => 0,
            };
            if worker.arena.bytes() > allowed {
                worker.arena = Aligned::default();
            }
        }
        let (isa, chunks, next) = (self.isa, &self.chunks, AtomicUsize::new(0));
        each_of(&self.pool, &mut self.workers[..at_once], |_, worker| {
            while let Some(rows) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                worker.run(isa, program, stage, part, rows);
            }
        });
        Ok(())
    }

    fn run_top_k(&mut self, stage: &TopK, part: &Part<'_>) {
        let reference = &self.references[stage.reference];
        let rows = part.rows.len();
        let base = |buffer: usize| part.bases[buffer].0;
        // SAFETY: the buffers have a query, `k` ids and `k` scores for each row of the part, and
        // nothing else runs.
        let ask = unsafe {
            Ask {
                queries: std::slice::from_raw_parts(
                    base(stage.query_buffer).cast(),
                    rows * reference.matrix().width(),
                ),
                metric: stage.metric,
                k: stage.k,
                ids: std::slice::from_raw_parts_mut(base(stage.ids_buffer).cast(), rows * stage.k),
                scores: std::slice::from_raw_parts_mut(base(stage.scores_buffer).cast(), rows * stage.k),
            }
        };
        self.top_k.run(self.isa, &self.pool, reference, ask, self.shares.top_k);
    }
}

impl Worker {
    /// Takes a chunk of rows through a stage.
    fn run(&mut self, isa: Isa, program: &Program, stage: &Chunked, part: &Part<'_>, rows: &Range<usize>) {
        self.arena.reserve(arena_bytes(stage, part.domains, rows) / size_of::<f32>());
        self.tensors.clear();
        self.tensors.extend((0..program.domains.len()).map(|domain| part.domains.tensors(domain, rows)));
        let mut at = Pointer(self.arena.as_mut_slice().as_mut_ptr().cast());
        self.slots.clear();
        for slot in &stage.slots {
            self.slots.push(at);
            at = at.at((self.tensors[slot.domain] * slot.bytes).next_multiple_of(64));
        }
        self.buffers.clear();
        for (buffer, base) in program.buffers.iter().zip(part.bases) {
            let first = part.domains.start(buffer.domain, rows.start);
            let before = first - part.domains.start(buffer.domain, part.rows.start);
            self.buffers.push(base.at(before * buffer.bytes));
        }
        self.values.clear();
        for place in &stage.places {
            self.values.push(match place {
                Place::Nowhere => Pointer(std::ptr::dangling_mut()),
                Place::Slot(slot) => self.slots[*slot],
                Place::Buffer(buffer) => self.buffers[*buffer],
            });
        }
        let view = View {
            program,
            values: &self.values,
            buffers: &self.buffers,
            tensors: &self.tensors,
            domains: part.domains,
            rows: rows.clone(),
        };
        for step in &stage.steps {
            step.run(isa, &view, &mut self.attention);
        }
    }
}

fn out_of_memory(error: TooLarge) -> Error {
    Error::OutOfMemory { device: "cpu".to_string(), reason: error.reason }
}

/// Memory for an output: every byte of it is written by the step that makes it.
fn uninitialised(bytes: usize) -> MutableBuffer {
    let mut buffer = MutableBuffer::with_capacity(bytes);
    // SAFETY: the capacity is there, and no byte is read before it is written: each output is made
    // for every row of every part, or the batch fails.
    unsafe { buffer.set_len(bytes) };
    buffer
}

fn gather_outputs(
    graph: &Graph,
    program: &Program,
    batch: &TensorBatch,
    buffers: &[Buffer],
) -> Result<TensorBatch> {
    let mut tensors = Vec::with_capacity(program.outputs.len());
    for (output, (_, value)) in program.outputs.iter().zip(graph.outputs()) {
        let ty = graph.value(*value);
        tensors.push(match output {
            Output::Input(input) => batch.tensors[*input].clone(),
            Output::Buffer(buffer) => {
                let domain = program.domains[program.value(*value).domain];
                let offsets = domain.and_then(|input| batch.tensors[input].offsets());
                let data = buffers[*buffer].clone();
                match offsets {
                    Some(offsets) => Tensor::ragged(ty.element, ty.dims.clone(), offsets.clone(), data)?,
                    None => Tensor::fixed(ty.element, ty.dims.clone(), batch.rows, data)?,
                }
            }
        });
    }
    Ok(TensorBatch { rows: batch.rows, tensors })
}
