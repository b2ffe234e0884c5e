//! Reads the files of one task.

use std::collections::VecDeque;
use std::path::Path;

use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::metrics::{Counter, MetricGroup};
use thalweg_engine::record::Batch;
use thalweg_engine::runtime::TARGET_BYTES;
use thalweg_engine::source::{ReaderContext, ReaderEffect, ReaderStatus, SourceReader, SplitId, SplitState};
use thalweg_engine::{Context, Error, Result};

use super::lines::{Chunk, OpenLines};
use super::parquet::OpenParquet;
use super::{FileFormat, FilePosition, FileSource};
use crate::bad_times::BadTimes;
use crate::format::{DeadLetter, DeadLetters, OnDecodeError};
use crate::position;

/// So many files are open at a time, and are read in turn.
const OPEN_FILES_MAX: usize = 16;

/// The dead letters' `cluster` for records of files.
const CLUSTER: &str = "file";

enum OpenFile {
    Lines(Box<OpenLines>),
    Parquet(Box<OpenParquet>),
}

impl OpenFile {
    fn position(&self) -> FilePosition {
        match self {
            OpenFile::Lines(file) => file.position(),
            OpenFile::Parquet(file) => file.position(),
        }
    }
}

pub(super) struct FileReader {
    source: FileSource,
    open: VecDeque<(SplitId, OpenFile)>,
    waiting: VecDeque<(SplitId, FilePosition)>,
    no_more_splits: bool,
    decode_errors: Counter,
    bad_times: BadTimes,
}

impl FileReader {
    pub(super) fn new(source: FileSource, metrics: &MetricGroup) -> FileReader {
        let help = "Records that could not be decoded.";
        FileReader {
            source,
            open: VecDeque::new(),
            waiting: VecDeque::new(),
            no_more_splits: false,
            decode_errors: metrics.counter("decode_errors_total", help),
            bad_times: BadTimes::new(metrics),
        }
    }

    fn open_waiting(&mut self) -> Result<()> {
        while self.open.len() < OPEN_FILES_MAX {
            let Some((id, position)) = self.waiting.pop_front() else { break };
            let path = Path::new(&*id.0);
            let file = match &self.source.format {
                FileFormat::Parquet(schema) => {
                    OpenFile::Parquet(Box::new(OpenParquet::open(path, schema, position)?))
                }
                format => OpenFile::Lines(Box::new(OpenLines::open(path, format, position)?)),
            };
            self.open.push_back((id, file));
        }
        Ok(())
    }

    /// Emits what comes next of a file; whether it is at its end.
    fn read(&mut self, id: &SplitId, file: &mut OpenFile, cx: &mut ReaderContext<'_>) -> Result<bool> {
        match file {
            OpenFile::Lines(file) => {
                let chunk = file.read_chunk()?;
                let at_end = chunk.at_end;
                self.emit_chunk(id, chunk, cx)?;
                Ok(at_end)
            }
            OpenFile::Parquet(file) => {
                let Some(batch) = file.read_batch()?.map(Batch::new) else {
                    return Ok(true);
                };
                // Rows of a dictionary can be longer than what was read.
                let rows = batch.rows_within(TARGET_BYTES);
                for first in (0..batch.row_count()).step_by(rows) {
                    cx.emit(id, batch.slice(first, rows.min(batch.row_count() - first)));
                }
                Ok(false)
            }
        }
    }

    fn emit_chunk(&mut self, id: &SplitId, chunk: Chunk, cx: &mut ReaderContext<'_>) -> Result<()> {
        self.decode_errors.add(chunk.decoded.bad.len() as u64);
        self.bad_times.count(&chunk.decoded.bad);
        let mut letters = DeadLetters::new();
        for bad in &chunk.decoded.bad {
            let line = chunk.lines.get(bad.index).copied().unwrap_or(0);
            match self.source.on_decode_error {
                OnDecodeError::Fail => {
                    return Err(Error::user(format!("{id}:{line}: cannot decode a record: {}", bad.reason)));
                }
                OnDecodeError::Drop => {}
                OnDecodeError::DeadLetter => letters.push(DeadLetter {
                    cluster: CLUSTER,
                    topic: &id.0,
                    partition: 0,
                    offset: line as i64,
                    reason: &bad.reason,
                    payload: &bad.payload,
                }),
            }
        }
        if let Some(letters) = letters.finish()? {
            cx.effect(ReaderEffect::Side(1, Batch::new(letters)));
        }
        if chunk.decoded.records.num_rows() > 0 {
            cx.emit(id, Batch::new(chunk.decoded.records));
        }
        Ok(())
    }

    fn held(&self) -> impl Iterator<Item = (&SplitId, FilePosition)> {
        let open = self.open.iter().map(|(id, file)| (id, file.position()));
        open.chain(self.waiting.iter().map(|(id, position)| (id, *position)))
    }
}

impl SourceReader for FileReader {
    fn add_splits(&mut self, splits: Vec<SplitState>, _cx: &mut ReaderContext<'_>) -> Result<()> {
        for split in splits {
            let position = position::decode(&split.position, "the position")
                .context(|| format!("split {}", split.id))?;
            self.waiting.push_back((split.id, position));
        }
        Ok(())
    }

    fn release_splits(&mut self, splits: &[SplitId], _cx: &mut ReaderContext<'_>) -> Result<Vec<SplitState>> {
        let held = self.held().filter(|(id, _)| splits.contains(id));
        let released = held.map(|(id, position)| position.state(id.clone())).collect();
        self.open.retain(|(id, _)| !splits.contains(id));
        self.waiting.retain(|(id, _)| !splits.contains(id));
        released
    }

    fn no_more_splits(&mut self) {
        self.no_more_splits = true;
    }

    fn poll(&mut self, cx: &mut ReaderContext<'_>) -> Result<ReaderStatus> {
        self.open_waiting()?;
        let Some((id, mut file)) = self.open.pop_front() else {
            let finished = self.no_more_splits;
            return Ok(if finished { ReaderStatus::Finished } else { ReaderStatus::Waiting(None) });
        };
        if self.read(&id, &mut file, cx)? {
            cx.effect(ReaderEffect::SplitFinished(file.position().state(id)?));
        } else {
            self.open.push_back((id, file));
        }
        Ok(ReaderStatus::Ready)
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<SplitState>> {
        self.held().map(|(id, position)| position.state(id.clone())).collect()
    }
}
