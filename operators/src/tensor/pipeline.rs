//! The operator: rows are gathered to batches, computed elsewhere, and leave with the columns that
//! were made of them.
//!
//! Nothing overtakes a row. A watermark passes when the rows before it have left; meanwhile later
//! rows are gathered all the same, so a batch may span watermarks and a stream with many of them
//! keeps its batches full. Before a barrier everything gathered is computed and emitted, so a
//! snapshot holds no rows: only what the results depend on.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array, UInt64Array};
use arrow::datatypes::SchemaRef;
use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::operator::{OpenContext, Operator, OperatorContext, OperatorSnapshot, OutputIndex, Step};
use thalweg_engine::record::Batch;
use thalweg_engine::time::{Micros, Watermark};
use thalweg_engine::{Error, Result};

use super::compute::{Compute, Computed};
use super::gather::{Cut, Gather, row_lengths};
use super::order::Order;
use super::pipeline_metrics::PipelineMetrics;
use super::rejected::{bad_row, dead_letters};
use super::worker::{Done, Worker};
use super::{Batching, OnBadRow, Provenance};

/// The side output of rows that were not taken.
const DEAD_LETTERS: OutputIndex = OutputIndex(1);

/// Full batches whose rows may wait for a row that is still gathered.
const WAITING_BATCHES_MAX: usize = 8;

/// What an instance is made of.
pub(super) struct Setup {
    pub batching: Arc<Batching>,
    pub on_bad_row: OnBadRow,
    /// The output's schema, and that of dead letters.
    pub output: SchemaRef,
    pub dead_letters: Option<SchemaRef>,
    /// The column whose lengths buckets are made by.
    pub bucketed_by: Option<usize>,
    /// Whether batches are computed in the task's own wake-ups.
    pub inline: bool,
    /// What the results depend on; watches the references.
    pub provenance: Provenance,
    /// Makes what computes, for a subtask. Called once, on the task's thread.
    pub compute: Box<dyn Fn(u32, &Provenance) -> Result<Box<dyn Compute>> + Send>,
}

/// One instance.
pub(super) struct Pipeline {
    setup: Setup,
    open: Option<Open>,
}

struct Open {
    gather: Gather,
    order: Order,
    /// With so many rows done that wait for one before them, its bucket is cut.
    waiting_rows_max: usize,
    /// Cut, and not with the worker yet.
    waiting: VecDeque<Cut>,
    worker: Worker,
    /// Batches with the worker, done ones not looked at among them.
    handed: usize,
    metrics: PipelineMetrics,
    cuts: Vec<Cut>,
}

impl Pipeline {
    pub(super) fn new(setup: Setup) -> Pipeline {
        Pipeline { setup, open: None }
    }

    fn parts(&mut self) -> Result<(&Setup, &mut Open)> {
        let open = self.open.as_mut().ok_or_else(|| Error::internal("the transform was not opened"))?;
        Ok((&self.setup, open))
    }

    /// Gives the worker what it has room for, and asks to be woken for the next deadline.
    fn hand_over(&mut self, cx: &mut OperatorContext<'_>) -> Result<()> {
        let (setup, open) = self.parts()?;
        // A bucket that fills slowly holds up the others only so far.
        if open.order.waiting_rows() >= open.waiting_rows_max {
            open.gather.cut_at(open.order.first(), &mut open.cuts);
        }
        open.waiting.extend(open.cuts.drain(..));
        // One more than can be under way is made ready meanwhile.
        while open.handed <= setup.batching.in_flight_max
            && let Some(cut) = open.waiting.pop_front()
        {
            open.metrics.handed(&cut, cx.now());
            open.worker.compute(cut);
            open.handed += 1;
        }
        let times = [open.gather.deadline(), setup.provenance.look_at()];
        times.into_iter().flatten().for_each(|at| cx.wake_at(at));
        Ok(())
    }

    /// Tells the worker of newer references, so that they are on the device when a barrier comes.
    fn expect_references(&mut self) -> Result<()> {
        if let Some(expected) = self.setup.provenance.expect() {
            self.parts()?.1.worker.expect(expected);
        }
        Ok(())
    }

    /// Emits what is done.
    fn emit_done(&mut self, mut done: Option<Done>, cx: &mut OperatorContext<'_>) -> Result<()> {
        let (setup, open) = self.parts()?;
        if done.is_none() {
            done = open.worker.done()?;
        }
        while let Some(one) = done {
            open.handed -= 1;
            open.metrics.done(&one);
            let Done { batch, cut, computed, .. } = one;
            open.refuse(setup, &batch, &computed, cx)?;
            let Computed { columns, kept, .. } = computed;
            let made = widened(&setup.output, batch, columns, kept.as_deref())?;
            if let Some(leaving) = open.order.finish(&cut.places, cut.rows, kept.as_deref(), made)? {
                cx.emit(leaving);
            }
            done = open.worker.done()?;
        }
        Ok(())
    }

    /// Goes on until everything has left.
    fn drain(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let (_, open) = self.parts()?;
        let done = open.worker.woken()?;
        self.emit_done(done, cx)?;
        self.hand_over(cx)?;
        let (_, open) = self.parts()?;
        Ok(if open.handed == 0 && open.waiting.is_empty() { Step::Done } else { Step::Wait })
    }
}

impl Open {
    /// Deals with the rows that were not taken.
    fn refuse(
        &mut self,
        setup: &Setup,
        batch: &Batch,
        computed: &Computed,
        cx: &mut OperatorContext<'_>,
    ) -> Result<()> {
        let Some(first) = computed.rejected.first() else { return Ok(()) };
        match setup.on_bad_row {
            OnBadRow::Fail => return Err(bad_row(batch.records(), first)),
            OnBadRow::Drop => {}
            OnBadRow::DeadLetter => {
                let schema = setup.dead_letters.as_ref();
                let schema = schema.ok_or_else(|| Error::internal("no schema of dead letters"))?;
                cx.emit_to(DEAD_LETTERS, dead_letters(schema, batch.records(), &computed.rejected)?);
            }
        }
        self.metrics.rejected.add(computed.rejected.len() as u64);
        Ok(())
    }
}

/// The rows that were kept, with the columns that were made of them.
fn widened(output: &SchemaRef, batch: Batch, columns: Vec<ArrayRef>, kept: Option<&[u32]>) -> Result<Batch> {
    let batch = match kept {
        Some(kept) => batch.take(&UInt32Array::from_iter_values(kept.iter().copied()))?,
        None => batch,
    };
    let hashes: Option<UInt64Array> = batch.key_hashes().cloned();
    let all = batch.records().columns().iter().cloned().chain(columns).collect();
    let made = Batch::new(RecordBatch::try_new(output.clone(), all)?);
    Ok(match hashes {
        Some(hashes) => made.with_key_hashes(hashes),
        None => made,
    })
}

impl Operator for Pipeline {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let setup = &mut self.setup;
        setup.provenance.open(cx)?;
        let metrics = PipelineMetrics::new(cx.metrics);
        let compute = (setup.compute)(cx.info.subtask, &setup.provenance)?;
        metrics.device_bytes.set(i64::try_from(compute.device_bytes()).unwrap_or(i64::MAX));
        let waker = cx.waker.clone();
        let worker = match setup.inline {
            true => Worker::inline(compute, waker),
            false => {
                let name = format!("{}/{} transform", cx.info.uid, cx.info.subtask);
                Worker::thread(&name, compute, setup.batching.in_flight_max, waker)?
            }
        };
        if setup.provenance.look_at().is_some() {
            // A time can be asked for only while an event is dealt with; this makes one.
            cx.waker.wake();
        }
        let has_buckets = setup.bucketed_by.is_some();
        self.open = Some(Open {
            gather: Gather::new(setup.batching.clone()),
            order: Order::new(setup.batching.ordered, has_buckets),
            waiting_rows_max: setup.batching.rows_max.saturating_mul(WAITING_BATCHES_MAX),
            waiting: VecDeque::new(),
            worker,
            handed: 0,
            metrics,
            cuts: Vec::new(),
        });
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.expect_references()?;
        let (setup, open) = self.parts()?;
        let first = open.order.arrive(batch.row_count());
        let lengths = match setup.bucketed_by {
            Some(column) => Some(row_lengths(batch.records().column(column))?),
            None => None,
        };
        open.gather.push(&batch, first, lengths.as_deref(), cx.now(), &mut open.cuts)?;
        self.emit_done(None, cx)?;
        self.hand_over(cx)?;
        Ok(Step::Done)
    }

    fn watermark(&mut self, watermark: Watermark, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.parts()?.1.order.watermark(watermark);
        Ok(Step::Done)
    }

    fn watermark_bound(&self) -> Option<Watermark> {
        self.open.as_ref()?.order.watermark_bound()
    }

    fn wake(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let now: Micros = cx.now();
        self.setup.provenance.look(now)?;
        self.expect_references()?;
        let (_, open) = self.parts()?;
        open.gather.due(now, &mut open.cuts);
        let done = open.worker.woken()?;
        self.emit_done(done, cx)?;
        self.hand_over(cx)?;
        Ok(Step::Done)
    }

    fn flush(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let (_, open) = self.parts()?;
        if open.order.is_empty() {
            return Ok(Step::Done);
        }
        open.gather.flush(&mut open.cuts);
        self.emit_done(None, cx)?;
        self.hand_over(cx)?;
        let (_, open) = self.parts()?;
        Ok(if open.handed == 0 { Step::Done } else { Step::Wait })
    }

    fn resume(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.drain(cx)
    }

    fn end_of_data(&mut self, _input: usize, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.flush(cx)
    }

    /// Batches beyond those that the device can have under way wait here: the device is the
    /// bottleneck, and more rows would only take memory.
    fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.waiting.is_empty())
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        // Nothing is under way: what comes behind the barrier is computed with what the snapshot
        // names.
        if let Some(references) = self.setup.provenance.renew() {
            self.parts()?.1.worker.set_references(references);
        }
        Ok(OperatorSnapshot { parts: vec![self.setup.provenance.snapshot()?], ..OperatorSnapshot::default() })
    }
}
