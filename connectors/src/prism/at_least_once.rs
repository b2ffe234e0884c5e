//! The sink that gives its records away at once, and whose checkpoints wait for them (P4).
//!
//! The rules: a full outbox holds the task's input back; the barrier does not stop the task
//! (waiting is the snapshot's work, on its helper thread) and what came before it is acknowledged
//! before its checkpoint is complete. After a crash rows since the last checkpoint come again,
//! with other ids: readers can drop the copies that retries make, not these.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thalweg_engine::checkpoint::{CheckpointId, SnapshotSite};
use thalweg_engine::metrics::Counter;
use thalweg_engine::operator::{OpenContext, Operator, OperatorContext, OperatorSnapshot, Step};
use thalweg_engine::record::Batch;
use thalweg_engine::{Error, Result};
use thalweg_proto::prism::{Record, RecordId};

use super::outbox::Outbox;
use super::row_records::RowRecords;
use super::sink::PrismSink;

/// One instance of the sink.
pub(super) struct AtLeastOnceWriter {
    sink: PrismSink,
    rows: RowRecords,
    /// Made and not yet taken by the outbox.
    waiting: VecDeque<Record>,
    open: Option<Open>,
}

struct Open {
    outbox: Outbox,
    producer: String,
    /// Counts barriers; the outbox's ticket.
    epoch: u64,
    sequence: u64,
    /// Snapshots that wait, and how to tell them to give up.
    waits: BTreeMap<CheckpointId, Arc<AtomicBool>>,
    stalls: Counter,
}

impl AtLeastOnceWriter {
    /// An instance that is not open yet.
    pub(super) fn new(sink: PrismSink, rows: RowRecords) -> Self {
        AtLeastOnceWriter { sink, rows, waiting: VecDeque::new(), open: None }
    }

    fn send(&mut self) -> Result<Step> {
        let Some(open) = &self.open else { return Err(not_open()) };
        if open.outbox.push(open.epoch, &mut self.waiting)? {
            return Ok(Step::Done);
        }
        open.stalls.add(1);
        open.outbox.wait_for_room();
        Ok(Step::More)
    }
}

fn not_open() -> Error {
    Error::internal("the Prism sink was not opened")
}

impl Operator for AtLeastOnceWriter {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let publisher = self.sink.target().connect(cx.metrics)?;
        let (topic, bytes) = (self.sink.topic(), self.sink.in_flight());
        self.open = Some(Open {
            outbox: Outbox::new(publisher, topic, bytes, cx.waker.clone(), cx.metrics)?,
            producer: cx.info.instance_name(),
            epoch: 0,
            sequence: 0,
            waits: BTreeMap::new(),
            stalls: cx.metrics.counter("prism_sink_stalls_total", "Times that the sink held its input back."),
        });
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        let mut records = self.rows.encode(batch.records())?;
        let Some(open) = &mut self.open else { return Err(not_open()) };
        for record in &mut records {
            let id = RecordId { producer: open.producer.clone(), epoch: open.epoch, sequence: open.sequence };
            open.sequence += 1;
            record.id = Some(id);
        }
        self.waiting.append(&mut records);
        self.send()
    }

    fn resume(&mut self, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.send()
    }

    fn wake(&mut self, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.send()
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let unsent = self.waiting.len();
        let Some(open) = &mut self.open else { return Err(not_open()) };
        if unsent > 0 {
            return Err(Error::external(format!("{unsent} rows wait for room in the outbox")));
        }
        open.outbox.check()?;
        let (ticket, given_up) = (open.epoch, Arc::new(AtomicBool::new(false)));
        open.epoch += 1;
        open.waits.insert(checkpoint, given_up.clone());
        let awaiter = open.outbox.awaiter();
        let wait = move |_: &SnapshotSite| {
            awaiter.wait(ticket, &|| given_up.load(Ordering::Acquire))?;
            Ok(Vec::new())
        };
        Ok(OperatorSnapshot { tasks: vec![Box::new(wait)], ..OperatorSnapshot::default() })
    }

    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        if let Some(open) = &mut self.open {
            open.waits.retain(|&other, _| other > checkpoint);
        }
        Ok(())
    }

    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        if let Some(given_up) = self.open.as_mut().and_then(|open| open.waits.remove(&checkpoint)) {
            given_up.store(true, Ordering::Release);
        }
        Ok(())
    }
}
