//! The sink whose records are published when their checkpoint is complete, and only then (P5).
//!
//! Rows of an epoch are staged in segments: local files, each uploaded when it is full, the last
//! one by the snapshot's task. At the barrier the records have ids for ever: a producer that is new
//! at every restore and in every store, the epoch, and a sequence that runs on without gaps. A
//! committable is a reference and a hash, and keeps its producer. What an aborted checkpoint
//! prepared keeps its ids and its place in the store, and rides with the next.
//!
//! Staging is bounded on disk. At the bound (the store is slow, or away) the sink says that it is
//! full, and its input is held back; a barrier still comes through, and room comes with each
//! segment that was uploaded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thalweg_engine::checkpoint::{
    CheckpointId, CheckpointStorage, FileHandle, JobLayout, SnapshotPart, SnapshotSite, SnapshotTask,
};
use thalweg_engine::graph::Uid;
use thalweg_engine::metrics::{Counter, Gauge};
use thalweg_engine::operator::{OpenContext, Operator, OperatorContext, OperatorSnapshot, Step, SubtaskInfo};
use thalweg_engine::record::Batch;
use thalweg_engine::sink::Committable;
use thalweg_engine::state::LockedDirectory;
use thalweg_engine::{Error, Result};

use super::row_records::RowRecords;
use super::segment::SegmentReference;
use super::sink::PrismSink;
use super::staging::{OpenSegment, SealedSegment, StagedBytes};
use super::uploads::Uploads;
use crate::epochs::Unconfirmed;
use crate::position;

/// So many segments fit into the disk bound at least: the one that is written never fills it.
const SEGMENTS_MIN: u64 = 4;

/// One instance of the sink.
pub(super) struct ExactlyOnceWriter {
    sink: PrismSink,
    rows: RowRecords,
    open: Option<Open>,
}

struct Open {
    info: SubtaskInfo,
    producer: String,
    layout: JobLayout,
    storage: Arc<dyn CheckpointStorage>,
    directory: Staging,
    staged: Arc<StagedBytes>,
    staging_bytes: u64,
    segment_bytes: u64,
    /// The next record's sequence when there is no current segment.
    sequence: u64,
    current: Option<OpenSegment>,
    /// Segments of this epoch that are full.
    filled: Vec<Arc<SealedSegment>>,
    uploads: Option<Uploads>,
    unconfirmed: Unconfirmed<Prepared>,
    stalled: bool,
    rows_staged: Counter,
    stalls: Counter,
    stalled_now: Gauge,
    upload_failures: Counter,
}

/// A segment that a checkpoint has.
#[derive(Clone)]
struct Prepared {
    epoch: u64,
    segment: Arc<SealedSegment>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.current = None;
        self.filled.clear();
        self.uploads = None;
        self.unconfirmed = Unconfirmed::default();
    }
}

fn not_open() -> Error {
    Error::internal("the Prism sink was not opened")
}

impl ExactlyOnceWriter {
    /// An instance that is not open yet.
    pub(super) fn new(sink: PrismSink, rows: RowRecords) -> Self {
        ExactlyOnceWriter { sink, rows, open: None }
    }
}

impl Open {
    fn new(sink: &PrismSink, cx: &OpenContext<'_>) -> Result<Open> {
        let metrics = cx.metrics;
        let staged_bytes = metrics.gauge("prism_sink_staged_bytes", "Bytes staged on the local disk.");
        let staging_bytes = sink.staging_limit();
        Ok(Open {
            info: cx.info.clone(),
            producer: cx.info.instance_name(),
            layout: JobLayout::new(&cx.info.job)?,
            storage: cx.storage.clone(),
            directory: staging_directory(sink, cx)?,
            staged: StagedBytes::new(staged_bytes, cx.waker.clone()),
            staging_bytes,
            segment_bytes: sink.segment_limit().min(staging_bytes / SEGMENTS_MIN).max(1),
            sequence: 0,
            current: None,
            filled: Vec::new(),
            uploads: None,
            unconfirmed: Unconfirmed::default(),
            stalled: false,
            rows_staged: metrics.counter("prism_sink_staged_total", "Records staged for their checkpoint."),
            stalls: metrics.counter("prism_sink_stalls_total", "Times that the sink held its input back."),
            stalled_now: metrics.gauge("prism_sink_stalled", "1 while the sink holds its input back."),
            upload_failures: metrics
                .counter("prism_sink_upload_failures_total", "Segments that could not be uploaded at once."),
        })
    }

    /// The current segment is full: it is uploaded while the epoch goes on.
    fn fill(&mut self) -> Result<()> {
        let Some(segment) = self.seal()? else { return Ok(()) };
        if self.uploads.is_none() {
            self.uploads = Some(Uploads::start(self.storage.clone(), self.upload_failures.clone())?);
        }
        if let Some(uploads) = &self.uploads {
            uploads.push(segment.clone());
        }
        self.filled.push(segment);
        Ok(())
    }

    /// Ends the current segment. When it cannot be written out it goes on.
    fn seal(&mut self) -> Result<Option<Arc<SealedSegment>>> {
        let Some(mut current) = self.current.take() else { return Ok(None) };
        if let Err(error) = current.flush() {
            self.current = Some(current);
            return Err(error);
        }
        let name = format!("segment-{}-{}", self.info.attempt, current.first_sequence);
        let path = self.layout.staged(self.info.generation, &self.info.uid, self.info.subtask, &name)?;
        Ok(Some(current.seal(path)))
    }

    fn is_full(&self) -> bool {
        self.staged.get() >= self.staging_bytes
    }

    /// Counts and tells where a stall begins, and where it ends.
    fn note_stall(&mut self) {
        let full = self.is_full();
        if full == std::mem::replace(&mut self.stalled, full) {
            return;
        }
        self.stalled_now.set(i64::from(full));
        let (uid, subtask, limit) = (&self.info.uid, self.info.subtask, self.staging_bytes);
        if full {
            self.stalls.add(1);
            tracing::warn!(
                %uid, subtask, limit,
                "rows are staged up to the disk bound and wait for the store: the sink holds its input back"
            );
        } else {
            tracing::info!(%uid, subtask, "the sink has room again");
        }
    }
}

fn staging_directory(sink: &PrismSink, cx: &OpenContext<'_>) -> Result<Staging> {
    let name = format!("prism-{}", cx.info.instance_name());
    match sink.staging_directory() {
        // A segment that is still on its way to the store keeps its file; it deletes itself.
        Some(parent) => {
            let directory = LockedDirectory::create(parent, &name, |name| name.starts_with("prism-"))?;
            Ok(Staging::Own(directory.keeping_files()))
        }
        None => Ok(Staging::Scratch(cx.backend.scratch(&name)?)),
    }
}

/// The local directory of an instance's segments.
enum Staging {
    /// Where the sink was told to; it goes with the instance.
    Own(LockedDirectory),
    /// Below the state's, and goes with that at the latest.
    Scratch(PathBuf),
}

impl Staging {
    fn path(&self) -> &Path {
        match self {
            Staging::Own(directory) => directory.path(),
            Staging::Scratch(directory) => directory,
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Staging::Scratch(directory) = self {
            // A segment that is still on its way to the store keeps the directory; it deletes itself,
            // and an empty directory is left.
            let _ = std::fs::remove_dir(directory);
        }
    }
}

impl Operator for ExactlyOnceWriter {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        self.open = Some(Open::new(&self.sink, cx)?);
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        let records = self.rows.encode(batch.records())?;
        let Some(open) = &mut self.open else { return Err(not_open()) };
        for record in &records {
            let segment = match &mut open.current {
                Some(segment) => segment,
                None => open.current.insert(OpenSegment::create(
                    open.directory.path(),
                    open.sequence,
                    &open.staged,
                )?),
            };
            segment.append(record)?;
            open.sequence = segment.next_sequence();
            if segment.bytes() >= open.segment_bytes {
                open.fill()?;
            }
        }
        open.rows_staged.add(records.len() as u64);
        open.note_stall();
        Ok(Step::Done)
    }

    fn wake(&mut self, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        if let Some(open) = &mut self.open {
            open.note_stall();
        }
        Ok(Step::Done)
    }

    fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(Open::is_full)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let Some(open) = &mut self.open else { return Err(not_open()) };
        // When this fails the checkpoint is declined, and the segment goes on.
        let last = open.seal()?;
        for segment in open.filled.drain(..).chain(last) {
            segment.prepare();
            open.unconfirmed.seal(checkpoint, Prepared { epoch: checkpoint.number, segment });
        }
        let prepared = open.unconfirmed.items();
        let mut snapshot = OperatorSnapshot::default();
        if prepared.is_empty() {
            return Ok(snapshot);
        }
        let (topic, producer) = (self.sink.topic().to_owned(), open.producer.clone());
        let uid = open.info.uid.clone();
        let upload = move |site: &SnapshotSite| -> Result<Vec<SnapshotPart>> {
            let upload = |prepared: &Prepared| -> Result<SnapshotPart> {
                let file = prepared.segment.upload(&*site.storage, &site.cancelled)?;
                Ok(SnapshotPart::Committable(committable(&uid, &topic, &producer, prepared, file)?))
            };
            prepared.iter().map(upload).collect()
        };
        snapshot.tasks.push(Box::new(upload) as SnapshotTask);
        Ok(snapshot)
    }

    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        if let Some(open) = &mut self.open {
            open.unconfirmed.completed(checkpoint);
            open.note_stall();
        }
        Ok(())
    }
}

fn committable(
    uid: &Uid,
    topic: &str,
    producer: &str,
    prepared: &Prepared,
    file: FileHandle,
) -> Result<Committable> {
    let objects = vec![file.path.clone()];
    let reference = SegmentReference {
        topic: topic.to_owned(),
        file,
        producer: producer.to_owned(),
        epoch: prepared.epoch,
        first_sequence: prepared.segment.first_sequence,
        records: prepared.segment.records,
    };
    Ok(Committable { uid: uid.clone(), payload: position::encode(&reference)?, objects })
}
