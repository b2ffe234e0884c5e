//! The sink whose records are published when their checkpoint is complete, and only then (P5).
//!
//! Rows of an epoch are staged in a local file. At the barrier the file is sealed and its records
//! have ids for ever: a producer that is new at every restore, the epoch, and a sequence that runs
//! on without gaps. The snapshot's task uploads it beside the checkpoint; the committable is a
//! reference and a hash. What an aborted checkpoint sealed keeps its ids, and is uploaded again
//! with the next: no checkpoint needs another one's files.
//!
//! Staging is bounded on disk. At the bound the sink holds its input back while a checkpoint is
//! under way that may free some; when none is, waiting would wait for a barrier that waits behind
//! the input, so the task fails and says why.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thalweg_engine::checkpoint::{
    CheckpointId, FileHandle, SnapshotPart, SnapshotSite, SnapshotTask, upload_private,
};
use thalweg_engine::graph::Uid;
use thalweg_engine::metrics::{Counter, Gauge};
use thalweg_engine::operator::{OpenContext, Operator, OperatorContext, OperatorSnapshot, Step};
use thalweg_engine::record::Batch;
use thalweg_engine::sink::Committable;
use thalweg_engine::{Error, Result};

use super::row_records::RowRecords;
use super::segment::SegmentReference;
use super::sink::{PrismSink, producer_name};
use super::staging::{OpenSegment, SealedSegment, StagedBytes};
use crate::epochs::Unconfirmed;
use crate::position;

/// How long a held back task rests before it is asked again.
const REST: Duration = Duration::from_millis(5);

/// One instance of the sink.
pub(super) struct ExactlyOnceWriter {
    sink: PrismSink,
    rows: RowRecords,
    open: Option<Open>,
    /// A batch that waits for room on the disk.
    waiting: Option<Batch>,
}

struct Open {
    uid: Uid,
    producer: String,
    directory: PathBuf,
    staged: StagedBytes,
    /// The next record's sequence when there is no current segment.
    sequence: u64,
    current: Option<OpenSegment>,
    unconfirmed: Unconfirmed<Arc<SealedSegment>>,
    /// Checkpoints that are neither complete nor aborted.
    under_way: BTreeSet<CheckpointId>,
    rows_staged: Counter,
    stalls: Counter,
    staged_bytes: Gauge,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.current = None;
        self.unconfirmed = Unconfirmed::default();
        // A segment that is still on its way to the store keeps the directory; it deletes itself,
        // and an empty directory is left.
        let _ = std::fs::remove_dir(&self.directory);
    }
}

fn not_open() -> Error {
    Error::internal("the Prism sink was not opened")
}

impl ExactlyOnceWriter {
    /// An instance that is not open yet.
    pub(super) fn new(sink: PrismSink, rows: RowRecords) -> Self {
        ExactlyOnceWriter { sink, rows, open: None, waiting: None }
    }

    fn take(&mut self, batch: Batch) -> Result<Step> {
        let limit = self.sink.staging_limit();
        let Some(open) = &mut self.open else { return Err(not_open()) };
        if open.staged.load(Ordering::Relaxed) >= limit {
            open.stalls.add(1);
            if open.under_way.is_empty() {
                return Err(Error::external(format!(
                    "{limit} bytes of rows are staged and no checkpoint is under way that could free them: \
                     take checkpoints more often, or allow more with staging_bytes"
                )));
            }
            self.waiting = Some(batch);
            std::thread::sleep(REST);
            return Ok(Step::More);
        }
        let records = self.rows.encode(batch.records())?;
        if records.is_empty() {
            return Ok(Step::Done);
        }
        let mut segment = match open.current.take() {
            Some(segment) => segment,
            None => OpenSegment::create(&open.directory, open.sequence, &open.staged)?,
        };
        for record in &records {
            segment.append(record)?;
        }
        open.sequence = segment.next_sequence();
        open.current = Some(segment);
        open.rows_staged.add(records.len() as u64);
        open.show();
        Ok(Step::Done)
    }

    fn go_on(&mut self) -> Result<Step> {
        match self.waiting.take() {
            Some(batch) => self.take(batch),
            None => Ok(Step::Done),
        }
    }
}

impl Open {
    fn show(&self) {
        let bytes = self.staged.load(Ordering::Relaxed);
        self.staged_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

impl Operator for ExactlyOnceWriter {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let info = cx.info;
        let unique = format!(
            "prism-{}-{}-{}-{}-{}",
            std::process::id(),
            info.uid,
            info.subtask,
            info.generation,
            info.attempt
        );
        let directory = match self.sink.staging_directory() {
            None => cx.backend.scratch(&unique)?,
            Some(parent) => {
                let directory = parent.join(&unique);
                // An earlier process of the same number may have left it.
                let _ = std::fs::remove_dir_all(&directory);
                std::fs::create_dir_all(&directory).map_err(|error| {
                    Error::external(format!("cannot make {}", directory.display())).caused_by(error)
                })?;
                directory
            }
        };
        self.open = Some(Open {
            uid: info.uid.clone(),
            producer: producer_name(info),
            directory,
            staged: StagedBytes::default(),
            sequence: 0,
            current: None,
            unconfirmed: Unconfirmed::default(),
            under_way: BTreeSet::new(),
            rows_staged: cx
                .metrics
                .counter("prism_sink_staged_total", "Records staged for their checkpoint."),
            stalls: cx.metrics.counter("prism_sink_stalls_total", "Times that the sink held its input back."),
            staged_bytes: cx.metrics.gauge("prism_sink_staged_bytes", "Bytes staged on the local disk."),
        });
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.take(batch)
    }

    fn resume(&mut self, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.go_on()
    }

    fn wake(&mut self, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.go_on()
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let Some(open) = &mut self.open else { return Err(not_open()) };
        if let Some(current) = &mut open.current {
            // When this fails the checkpoint is declined, and the segment goes on.
            current.flush()?;
        }
        if let Some(current) = open.current.take() {
            open.unconfirmed.seal(checkpoint, Arc::new(current.seal(checkpoint.number)));
        }
        open.under_way.insert(checkpoint);
        let mut snapshot = OperatorSnapshot::default();
        for segment in open.unconfirmed.items() {
            let (topic, producer) = (self.sink.topic().to_owned(), open.producer.clone());
            let uid = open.uid.clone();
            let upload = move |site: &SnapshotSite| {
                let name = format!("segment-{}-{}", segment.epoch, segment.first_sequence);
                let file = upload_private(site, &name, &segment.path)?;
                Ok(vec![SnapshotPart::Committable(committable(uid, topic, producer, &segment, file)?)])
            };
            snapshot.tasks.push(Box::new(upload) as SnapshotTask);
        }
        Ok(snapshot)
    }

    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        if let Some(open) = &mut self.open {
            open.under_way.retain(|&other| other > checkpoint);
            open.unconfirmed.completed(checkpoint);
            open.show();
        }
        Ok(())
    }

    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        if let Some(open) = &mut self.open {
            open.under_way.remove(&checkpoint);
        }
        Ok(())
    }
}

fn committable(
    uid: Uid,
    topic: String,
    producer: String,
    segment: &SealedSegment,
    file: FileHandle,
) -> Result<Committable> {
    let objects = vec![file.path.clone()];
    let reference = SegmentReference {
        topic,
        file,
        producer,
        epoch: segment.epoch,
        first_sequence: segment.first_sequence,
        records: segment.records,
    };
    Ok(Committable { uid, payload: position::encode(&reference)?, objects })
}
