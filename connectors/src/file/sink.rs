//! The file sink: writes rows to files in a directory, each exactly once.

use std::path::PathBuf;
use std::sync::Arc;

use thalweg_engine::checkpoint::{CheckpointId, SnapshotPart};
use thalweg_engine::graph::Uid;
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step, single_input,
};
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::sink::Committable;
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};

use super::commit::{CommittedFile, FileCommitter, Prepared};
use super::staged::{ROW_GROUP_BYTES, StagedFile};
use crate::epochs::Unconfirmed;
use crate::format::{CsvEncoder, EncodedRows, Encoder, JsonEncoder};
use crate::position;
use crate::sink::{Sink, SinkParts};

/// How rows are written to files.
#[derive(Clone, Copy, Debug)]
pub enum FileSinkFormat {
    /// JSON lines.
    Json(JsonEncoder),
    /// CSV.
    Csv {
        /// Encodes the rows.
        encoder: CsvEncoder,
        /// Whether each file begins with the columns' names.
        header: bool,
    },
    /// Parquet, compressed with zstd.
    Parquet,
}

impl FileSinkFormat {
    pub(super) fn extension(&self) -> &'static str {
        match self {
            FileSinkFormat::Json(_) => "jsonl",
            FileSinkFormat::Csv { .. } => "csv",
            FileSinkFormat::Parquet => "parquet",
        }
    }

    fn encoder(&self) -> Option<Box<dyn Encoder>> {
        match self {
            FileSinkFormat::Json(encoder) => Some(Box::new(*encoder)),
            FileSinkFormat::Csv { encoder, .. } => Some(Box::new(*encoder)),
            FileSinkFormat::Parquet => None,
        }
    }
}

/// Writes append rows to files in a directory: one file for each instance and checkpoint with
/// rows, named `<job>-<uid>-<subtask>-<generation>-<attempt>-<claim>-<n>`. The claim is new with
/// each start of the job, in whatever checkpoint store: no two files ever have one name.
///
/// Exactly once, by two-phase commit: a file is written in the directory's `.staging`, brought to
/// disk when its checkpoint is taken, and renamed when the checkpoint has committed. So what is in
/// the directory is complete and final, and a bounded job's output is complete when its last
/// checkpoint has committed. The directory has to outlive the machine if the job is to: on a
/// restore elsewhere, staged files are needed. Files that a crash left uncommitted stay in
/// `.staging`; they may be removed while the job does not run and owes no commit.
#[derive(Clone, Debug)]
pub struct FileSink {
    directory: PathBuf,
    format: FileSinkFormat,
}

impl FileSink {
    /// A sink that writes to this directory, which is made when it is missing.
    pub fn new(directory: impl Into<PathBuf>, format: FileSinkFormat) -> FileSink {
        FileSink { directory: directory.into(), format }
    }

    /// JSON lines.
    pub fn json(directory: impl Into<PathBuf>) -> FileSink {
        Self::new(directory, FileSinkFormat::Json(JsonEncoder::new()))
    }

    /// CSV with a header.
    pub fn csv(directory: impl Into<PathBuf>) -> FileSink {
        Self::new(directory, FileSinkFormat::Csv { encoder: CsvEncoder::new(), header: true })
    }

    /// Parquet.
    pub fn parquet(directory: impl Into<PathBuf>) -> FileSink {
        Self::new(directory, FileSinkFormat::Parquet)
    }
}

impl Sink for FileSink {
    fn into_parts(self) -> SinkParts {
        SinkParts { factory: Arc::new(self), committer: Some(Arc::new(FileCommitter)) }
    }
}

impl OperatorFactory for FileSink {
    fn name(&self) -> String {
        format!("file {}", self.directory.display())
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(FileWriter {
            sink: self.clone(),
            instance: None,
            sequence: 0,
            encoder: self.format.encoder(),
            rows: EncodedRows::new(),
            current: None,
            unconfirmed: Unconfirmed::default(),
        }))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        single_input(inputs)?;
        Ok(Vec::new())
    }

    fn memory_bytes(&self, parallelism: u32) -> u64 {
        match self.format {
            // The row group that is being made, and the one before it, which a snapshot finishes.
            FileSinkFormat::Parquet => u64::from(parallelism) * 2 * ROW_GROUP_BYTES as u64,
            FileSinkFormat::Json(_) | FileSinkFormat::Csv { .. } => 0,
        }
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        Some(StateIdentity::of("file sink"))
    }

    fn describe(&self) -> String {
        format!("{} {:?}", self.name(), self.format)
    }
}

struct FileWriter {
    sink: FileSink,
    /// The operator, and the beginning of its files' names: no other instance has or had it.
    instance: Option<(Uid, String)>,
    sequence: u64,
    encoder: Option<Box<dyn Encoder>>,
    rows: EncodedRows,
    current: Option<Arc<StagedFile>>,
    unconfirmed: Unconfirmed<Arc<StagedFile>>,
}

impl FileWriter {
    fn instance(&self) -> Result<&(Uid, String)> {
        self.instance.as_ref().ok_or_else(|| Error::internal("the file sink was not opened"))
    }
}

impl Operator for FileWriter {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        self.instance = Some((cx.info.uid.clone(), cx.info.instance_name()));
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        let current = match &self.current {
            Some(current) => Arc::clone(current),
            None => {
                let stem = self.instance()?.1.clone();
                let (directory, format) = (&self.sink.directory, &self.sink.format);
                let schema = batch.schema();
                let file = StagedFile::create(directory, &stem, &mut self.sequence, format, &schema)?;
                Arc::clone(self.current.insert(Arc::new(file)))
            }
        };
        current.write(batch.records(), self.encoder.as_deref_mut(), &mut self.rows)?;
        Ok(Step::Done)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        if let Some(current) = self.current.take() {
            self.unconfirmed.seal(checkpoint, current);
        }
        let files = self.unconfirmed.items();
        let mut snapshot = OperatorSnapshot::default();
        if !files.is_empty() {
            let (uid, directory) = (self.instance()?.0.clone(), self.sink.directory.clone());
            snapshot.tasks.push(Box::new(move |_site| {
                let finished = files.iter().map(|file| {
                    let bytes = file.finish()?;
                    Ok(CommittedFile { name: file.name.clone(), bytes })
                });
                let prepared = Prepared { directory, files: finished.collect::<Result<_>>()? };
                let payload = position::encode(&prepared)?;
                Ok(vec![SnapshotPart::Committable(Committable { uid, payload, objects: Vec::new() })])
            }));
        }
        Ok(snapshot)
    }

    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.unconfirmed.completed(checkpoint);
        Ok(())
    }
}
