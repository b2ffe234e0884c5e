//! Reads generated splits in one task.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::record::Batch;
use thalweg_engine::runtime::TARGET_BYTES;
use thalweg_engine::source::{ReaderContext, ReaderEffect, ReaderStatus, SourceReader, SplitId, SplitState};
use thalweg_engine::time::{MILLI, Micros, SECOND};
use thalweg_engine::{Context, Result};

use super::column::Maker;
use super::{BLOCK_ROWS, Generator};
use crate::position;

/// With a rate, a reader sleeps at least this long: at high rates rows come in handfuls.
const SLEEP_MIN: Micros = MILLI;

/// Split `index` of `of`, and how many of its rows were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SplitPosition {
    pub(super) index: u32,
    pub(super) of: u32,
    pub(super) next: u64,
}

impl SplitPosition {
    /// The number, over the whole source, of the split's next row.
    pub(super) fn next_row(self) -> u64 {
        self.next_run().0
    }

    /// The number, over the whole source, of the split's next row, and how many rows follow it
    /// without a gap.
    fn next_run(self) -> (u64, u64) {
        let (block, within) = (self.next / BLOCK_ROWS, self.next % BLOCK_ROWS);
        let first = (block * u64::from(self.of) + u64::from(self.index)) * BLOCK_ROWS + within;
        (first, BLOCK_ROWS - within)
    }
}

struct Split {
    id: SplitId,
    position: SplitPosition,
    /// Rows emitted since the reader took it, for the rate.
    emitted: u64,
    taken_at: Micros,
}

pub(super) struct GeneratorReader {
    schema: SchemaRef,
    makers: Vec<Maker>,
    count: Option<u64>,
    rows_per_second: Option<u64>,
    batch_rows: u64,
    splits: VecDeque<Split>,
    no_more_splits: bool,
}

impl GeneratorReader {
    pub(super) fn new(generator: &Generator, schema: SchemaRef) -> GeneratorReader {
        let columns = generator.columns.iter().enumerate();
        let row_bytes: usize = generator.columns.iter().map(|(_, column)| column.value_bytes_max()).sum();
        let rows_max = (TARGET_BYTES / row_bytes.max(1)).max(1) as u64;
        GeneratorReader {
            schema,
            makers: columns.map(|(i, (_, generate))| Maker::new(generate, generator.seed, i)).collect(),
            count: generator.count,
            rows_per_second: generator.rows_per_second,
            batch_rows: generator.batch_rows.min(rows_max),
            splits: VecDeque::new(),
            no_more_splits: false,
        }
    }

    /// Rows `first..first + rows` of the whole source.
    pub(super) fn make(&self, first: u64, rows: usize) -> Result<RecordBatch> {
        let columns = self.makers.iter().map(|maker| maker.make(first, rows)).collect();
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }

    /// How many rows the split may emit now under the rate; 0: the time from which it may.
    fn allowed(&self, split: &Split, now: Micros) -> (u64, Micros) {
        let Some(rate) = self.rows_per_second else {
            return (u64::MAX, now);
        };
        let (rate, of) = (u128::from(rate), u128::from(split.position.of));
        let elapsed = now.saturating_sub(split.taken_at).max(0) as u128;
        let due = elapsed * rate / (of * SECOND as u128);
        let allowed = (due as u64).saturating_sub(split.emitted);
        let next = (u128::from(split.emitted) + 1) * of * SECOND as u128;
        (allowed, (split.taken_at + next.div_ceil(rate) as Micros).max(now + SLEEP_MIN))
    }

    fn state(split: &Split) -> Result<SplitState> {
        Ok(SplitState { id: split.id.clone(), position: position::encode(&split.position)? })
    }
}

impl SourceReader for GeneratorReader {
    fn add_splits(&mut self, splits: Vec<SplitState>, cx: &mut ReaderContext<'_>) -> Result<()> {
        for split in splits {
            let position = position::decode(&split.position, "the position")
                .context(|| format!("split {}", split.id))?;
            self.splits.push_back(Split { id: split.id, position, emitted: 0, taken_at: cx.now() });
        }
        Ok(())
    }

    fn release_splits(&mut self, splits: &[SplitId], _cx: &mut ReaderContext<'_>) -> Result<Vec<SplitState>> {
        let released =
            self.splits.iter().filter(|split| splits.contains(&split.id)).map(Self::state).collect();
        self.splits.retain(|split| !splits.contains(&split.id));
        released
    }

    fn no_more_splits(&mut self) {
        self.no_more_splits = true;
    }

    fn poll(&mut self, cx: &mut ReaderContext<'_>) -> Result<ReaderStatus> {
        let mut wake: Option<Micros> = None;
        for _ in 0..self.splits.len() {
            let Some(mut split) = self.splits.pop_front() else { break };
            let (first, run) = split.position.next_run();
            let left = self.count.map_or(u64::MAX, |count| count.saturating_sub(first));
            if left == 0 {
                cx.effect(ReaderEffect::SplitFinished(Self::state(&split)?));
                continue;
            }
            let (allowed, next) = self.allowed(&split, cx.now());
            let rows = run.min(left).min(allowed).min(self.batch_rows);
            if rows > 0 {
                let batch = self.make(first, rows as usize)?;
                split.position.next += rows;
                split.emitted += rows;
                cx.emit(&split.id, Batch::new(batch));
                self.splits.push_back(split);
                return Ok(ReaderStatus::Ready);
            }
            wake = Some(wake.map_or(next, |earlier| earlier.min(next)));
            self.splits.push_back(split);
        }
        match wake {
            None if self.splits.is_empty() && self.no_more_splits => Ok(ReaderStatus::Finished),
            wake => Ok(ReaderStatus::Waiting(wake)),
        }
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<SplitState>> {
        self.splits.iter().map(Self::state).collect()
    }
}
