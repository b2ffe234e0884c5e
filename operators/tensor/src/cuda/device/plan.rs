//! A graph on a device, for one task: batches in slots, in the order of their submission.
//!
//! All parts of a batch go onto its slot's stream at once, with the arena used again from part to
//! part; the next batch has another stream, so its copies run while this one computes. Memory is
//! taken before anything is started, so that a batch that is under way cannot run out of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::buffer::OffsetBuffer;
use cudarc::driver::CudaEvent;
use cudarc::driver::sys::CUevent_flags;

use super::Shared;
use super::arena_bound::ArenaBound;
use super::batch_parts::{PartLimits, cut, rebased};
use super::constants::Constants;
use super::device_reference::HeldReference;
use super::failure::Failure;
use super::kernels::LoadedKernel;
use super::launch::{Places, ReferencePlaces};
use super::memory_budget::{MemoryBudget, Share};
use super::pipeline::Pipeline;
use super::run::{PartEvents, Runner};
use super::slot::{Slot, SlotParts};
use super::staging::{Staging, axis_offsets};
use super::timing::milliseconds as milliseconds_between;
use crate::backend::Finished;
use crate::cuda::program::{Counts, Program, ReferenceSlot};
use crate::op::ReferenceId;
use crate::{Error, Limits, Plan, ReferenceMatrix, Result, TensorBatch};

/// A graph ready to run on a device.
pub(super) struct CudaPlan {
    // The order of the fields is that of their end: batches under way end before what they use.
    pub(super) pipeline: Pipeline<UnderWay, Result<Finished>>,
    pub(super) idle: Vec<Slot>,
    pub(super) references: Vec<Arc<HeldReference>>,
    /// Those that will follow, on their way to the device.
    pub(super) expected: Vec<Option<Arc<HeldReference>>>,
    pub(super) constants: (Arc<Constants>, Share),
    pub(super) kernels: Vec<Arc<LoadedKernel>>,
    /// Behind the steps of the batch that ended last.
    pub(super) last_end: Option<CudaEvent>,
    /// The width of each reference matrix of the graph, whether the program uses it or not.
    pub(super) reference_widths: Vec<usize>,
    pub(super) program: Arc<Program>,
    pub(super) limits: Limits,
    pub(super) budget: MemoryBudget,
    pub(super) shared: Arc<Shared>,
}

/// A batch on the device.
pub(super) struct UnderWay {
    slot: Slot,
    staging: Staging,
    rows: usize,
    axes: Vec<OffsetBuffer<i32>>,
    events: Vec<PartEvents>,
    /// Held, not read: a matrix that is replaced stays until its last batch is done.
    _references: Vec<Arc<HeldReference>>,
}

/// A batch that is to be started, cut into parts.
struct Cut {
    parts: Vec<Range<usize>>,
    counts: Vec<Counts>,
    /// What the largest of them needs.
    arena_bytes: usize,
    /// Whether that is a part of one row: it cannot be made smaller.
    is_least: bool,
}

impl Plan for CudaPlan {
    fn submit(&mut self, batch: TensorBatch) -> Result<()> {
        self.shared.device.check()?;
        self.check_batch(&batch)?;
        while self.pipeline.is_full() {
            self.end_oldest();
        }
        let Some(mut slot) = self.idle.pop() else {
            return Err(self.shared.device.error(Failure::Refused("no slot is idle".to_owned())));
        };
        match self.start(&mut slot, &batch) {
            Ok(started) => {
                let (staging, axes, events) = started;
                let references = self.references.clone();
                self.pipeline.began(UnderWay {
                    slot,
                    staging,
                    rows: batch.rows,
                    axes,
                    events,
                    _references: references,
                });
                Ok(())
            }
            Err(failure) => {
                self.idle.push(slot);
                match failure {
                    // Its turn to be answered comes behind the batches before it.
                    Failure::OutOfMemory(_) => {
                        self.pipeline.done_at_once(Err(self.shared.device.error(failure)));
                        Ok(())
                    }
                    failure => Err(self.shared.device.error(failure)),
                }
            }
        }
    }

    fn is_ready(&self) -> bool {
        let Some(batch) = self.pipeline.awaited() else {
            return true;
        };
        if self.shared.device.check().is_err() {
            return true;
        }
        // A failure is ready to be told.
        batch.slot.done().try_is_complete().unwrap_or(true)
    }

    fn finish(&mut self) -> Result<Option<Finished>> {
        if let Some(done) = self.pipeline.take() {
            return done.map(Some);
        }
        self.end_oldest();
        self.pipeline.take().transpose()
    }

    fn expect_reference(&mut self, reference: ReferenceId, matrix: &Arc<ReferenceMatrix>) -> Result<()> {
        let brought = self.bring(reference, matrix);
        if brought.is_err() {
            self.expected.fill(None);
        }
        for (index, held) in brought? {
            self.expected[index] = Some(held);
        }
        Ok(())
    }

    fn set_reference(&mut self, reference: ReferenceId, matrix: Arc<ReferenceMatrix>) -> Result<()> {
        for (index, held) in self.bring(reference, &matrix)? {
            self.references[index] = held;
        }
        Ok(())
    }

    fn device_bytes(&self) -> usize {
        self.budget.bytes_used()
    }
}

impl CudaPlan {
    /// The matrix on the device, or on its way there, for each place of the program that looks in it.
    fn bring(
        &mut self,
        reference: ReferenceId,
        matrix: &Arc<ReferenceMatrix>,
    ) -> Result<Vec<(usize, Arc<HeldReference>)>> {
        self.shared.device.check()?;
        check_width(self.reference_widths.get(reference.0 as usize).copied(), matrix)?;
        let program = Arc::clone(&self.program);
        let mut brought = Vec::new();
        for (index, spec) in program.references.iter().enumerate() {
            if spec.reference != reference {
                continue;
            }
            // Another one than was expected makes room before this one takes it.
            let expected = self.expected[index].take().filter(|held| held.reference.is_of(matrix, spec));
            let held = match expected {
                Some(held) => held,
                None => Arc::new(self.upload(&program, ReferenceSlot(index), matrix)?),
            };
            brought.push((index, held));
        }
        Ok(brought)
    }

    fn upload(
        &mut self,
        program: &Arc<Program>,
        slot: ReferenceSlot,
        matrix: &Arc<ReferenceMatrix>,
    ) -> Result<HeldReference> {
        let upload =
            |budget: &MemoryBudget| self.shared.reference(budget, program, &self.kernels, slot, matrix);
        match upload(&self.budget) {
            Err(Error::OutOfMemory { .. }) => {}
            held => return held,
        }
        // What idle slots keep for their next batch may make room.
        self.idle.iter_mut().for_each(Slot::trim);
        self.shared.reference(&self.budget, program, &self.kernels, slot, matrix)
    }
}

/// Whether a matrix has the width that the graph has for it; `None` where the graph has none.
///
/// # Errors
/// Says both widths.
pub(super) fn check_width(wanted: Option<usize>, matrix: &ReferenceMatrix) -> Result<()> {
    if wanted == Some(matrix.width()) {
        return Ok(());
    }
    let wanted = wanted.map_or("no such matrix".to_owned(), |width| format!("{width}"));
    Err(Error::weights(
        format!("reference matrix `{}`", matrix.name()),
        format!("its vectors have {} elements, the graph needs {wanted}", matrix.width()),
    ))
}

impl CudaPlan {
    fn check_batch(&self, batch: &TensorBatch) -> Result<()> {
        if batch.tensors.len() != self.program.inputs.len() {
            let wanted = self.program.inputs.len();
            let reason = format!("{wanted} tensors are needed, {} came", batch.tensors.len());
            return Err(Error::input("batch", reason));
        }
        for (port, tensor) in self.program.inputs.iter().zip(&batch.tensors) {
            let is_right = tensor.element() == port.element
                && tensor.dims() == port.dims
                && tensor.offsets().is_some() == port.axis.is_some();
            if !is_right || tensor.rows() != batch.rows {
                let lengths = |ragged: bool| if ragged { " with lengths" } else { "" };
                return Err(Error::input(
                    &*port.name,
                    format!(
                        "{}{:?}{} of {} rows is needed, {}{:?}{} of {} rows came",
                        port.element,
                        port.dims,
                        lengths(port.axis.is_some()),
                        batch.rows,
                        tensor.element(),
                        tensor.dims(),
                        lengths(tensor.offsets().is_some()),
                        tensor.rows()
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Starts a batch in smaller and smaller parts, until memory suffices for one of them.
    fn start(
        &mut self,
        slot: &mut Slot,
        batch: &TensorBatch,
    ) -> Result<(Staging, Vec<OffsetBuffer<i32>>, Vec<PartEvents>), Failure> {
        let axes = axis_offsets(&self.program, batch)?;
        let owned: Vec<OffsetBuffer<i32>> = axes.iter().map(|axis| (*axis).clone()).collect();
        let mut bound = ArenaBound::new(
            self.limits.in_flight_max.max(1),
            self.budget.bytes_left() + slot.arena_bytes(),
            self.idle.iter().map(Slot::arena_bytes).sum(),
            self.pipeline_arena_bytes(),
        );
        loop {
            let cut = self.cut(batch.rows, &axes, bound)?;
            let staging = Staging::new(&self.program, batch.rows, &axes, &cut.parts);
            let started = self
                .reserve(slot, cut.arena_bytes, bound)
                .and_then(|()| self.start_parts(slot, batch, &axes, &cut, &staging));
            match started {
                Ok(events) => return Ok((staging, owned, events)),
                Err(Failure::OutOfMemory(reason)) => {
                    // What was started before the failure must be past the slot's memory.
                    slot.synchronize()?;
                    let smaller = bound.below(cut.arena_bytes, cut.is_least);
                    bound = smaller.ok_or(Failure::OutOfMemory(reason))?;
                }
                Err(failure) => {
                    // Of a batch that failed nothing may be under way. The failure says more than
                    // what the wait for it may answer, but that the device is lost.
                    return Err(match slot.synchronize() {
                        Err(Failure::Lost(reason)) => Failure::Lost(format!("{failure:?}, then {reason}")),
                        _ => failure,
                    });
                }
            }
        }
    }

    fn pipeline_arena_bytes(&self) -> usize {
        self.pipeline.under_way().map(|batch| batch.slot.arena_bytes()).sum()
    }

    fn reference_rows(&self) -> Vec<usize> {
        self.references.iter().map(|held| held.reference.rows()).collect()
    }

    fn cut(&self, rows: usize, axes: &[&OffsetBuffer<i32>], bound: ArenaBound) -> Result<Cut, Failure> {
        let reference_rows = self.reference_rows();
        let counts = |part: &Range<usize>| {
            let own: Vec<Vec<i32>> = axes.iter().map(|axis| rebased(axis, part)).collect();
            let own: Vec<&[i32]> = own.iter().map(Vec::as_slice).collect();
            self.program.counts(part.len(), &own, &reference_rows)
        };
        let offsets: Vec<&[i32]> = axes.iter().map(|axis| &axis[..]).collect();
        let limits = PartLimits { rows_max: self.limits.rows_max, tokens_max: self.limits.tokens_max };
        let bytes = |part: &Range<usize>| self.program.layout(&counts(part)).bytes;
        let parts = cut(rows, &offsets, limits, |part| bytes(part) <= bound.bytes_max(part.len())).map_err(
            |row| {
                Failure::OutOfMemory(format!(
                    "row {row} of the batch needs {} bytes alone, there are {} beside {} of weights, \
                     references and scratch, of {} that may be used",
                    bytes(&(row..row + 1)),
                    bound.bytes_max(1),
                    self.budget.bytes_max().saturating_sub(bound.bytes_max(1)),
                    self.budget.bytes_max()
                ))
            },
        )?;
        let counts: Vec<Counts> = parts.iter().map(counts).collect();
        let needs: Vec<usize> = counts.iter().map(|counts| self.program.layout(counts).bytes).collect();
        let arena_bytes = needs.iter().copied().max().unwrap_or(0);
        let is_least = parts.iter().zip(&needs).any(|(part, need)| part.len() == 1 && *need == arena_bytes);
        Ok(Cut { parts, counts, arena_bytes, is_least })
    }

    fn reserve(&mut self, slot: &mut Slot, bytes: usize, bound: ArenaBound) -> Result<(), Failure> {
        let bytes_max = bound.bytes_max(usize::MAX);
        match slot.reserve(&self.budget, bytes, bytes_max) {
            Err(Failure::OutOfMemory(_)) => {
                self.idle.iter_mut().for_each(Slot::trim);
                slot.reserve(&self.budget, bytes, bytes_max)
            }
            reserved => reserved,
        }
    }

    fn start_parts(
        &self,
        slot: &mut Slot,
        batch: &TensorBatch,
        axes: &[&OffsetBuffer<i32>],
        cut: &Cut,
        staging: &Staging,
    ) -> Result<Vec<PartEvents>, Failure> {
        let (arena, workspace) = (slot.arena(), slot.workspace());
        let (input, _) = slot.pinned(staging.input_bytes, staging.output_bytes)?;
        staging.fill(&self.program, batch, axes, &cut.parts, input.as_mut_slice());
        let references: Vec<ReferencePlaces> =
            self.references.iter().map(|held| held.reference.places()).collect();
        let context = self.shared.device.context();
        let event = || context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        let mut events = Vec::with_capacity(cut.parts.len());
        if let Some(SlotParts { stream, search, input, output }) = slot.parts() {
            for (counts, copies) in cut.counts.iter().zip(&staging.parts) {
                let layout = self.program.layout(counts);
                let places = Places {
                    arena,
                    layout: &layout,
                    constants: self.constants.0.addresses(),
                    references: &references,
                };
                let runner = Runner {
                    program: &self.program,
                    kernels: &self.kernels,
                    matmuls: &self.shared.matmuls,
                    places,
                    references: &self.references,
                    workspace,
                    stream,
                    search,
                };
                let around = PartEvents { begin: event()?, end: event()? };
                // SAFETY: the arena is as large as the largest layout, the slot is this batch's until
                // its last event, constants live as long as the plan, references as the batch.
                unsafe { runner.start(counts, copies, input, output, &around) }?;
                events.push(around);
            }
        }
        slot.done().record(slot.stream())?;
        Ok(events)
    }

    /// Waits for the oldest batch that runs, and keeps its result.
    fn end_oldest(&mut self) {
        let CudaPlan { pipeline, idle, shared, program, last_end, .. } = self;
        pipeline.end_oldest(|mut batch| {
            let result = shared.device.check().and_then(|()| {
                let device_time = wait(&batch, last_end.as_ref());
                let device_time = device_time.map_err(|failure| shared.device.error(failure))?;
                let pinned = batch.slot.output();
                let outputs = batch.staging.unload(program, batch.rows, &batch.axes, pinned)?;
                Ok(Finished { batch: outputs, device_time, copied_bytes: batch.staging.copied_bytes() })
            });
            if let Some(events) = batch.events.pop() {
                *last_end = Some(events.end);
            }
            idle.push(batch.slot);
            result
        });
    }
}

/// Waits for a batch. How long the device computed it: the time of its parts, less what ran beside
/// the batch before it, which has counted that time already.
fn wait(batch: &UnderWay, last_end: Option<&CudaEvent>) -> Result<Duration, Failure> {
    batch.slot.done().synchronize()?;
    let mut milliseconds = 0.0;
    for events in &batch.events {
        milliseconds += milliseconds_between(&events.begin, &events.end)?;
    }
    if let (Some(before), Some(last)) = (last_end, batch.events.last()) {
        milliseconds = milliseconds.min(milliseconds_between(before, &last.end)?);
    }
    Ok(Duration::try_from_secs_f32(milliseconds.max(0.0) / 1_000.0).unwrap_or_default())
}
