//! Any source, held back until checkpoints have completed: so that they come in the middle of a
//! bounded job, by condition and not by luck.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use thalweg::engine::checkpoint::CheckpointId;
use thalweg::engine::record::EdgeSchema;
use thalweg::engine::source::{
    Discovery, Enumerator, ReaderContext, ReaderEffect, ReaderOpenContext, ReaderStatus, Source,
    SourceReader, SplitId, SplitState,
};
use thalweg::engine::state::StateIdentity;
use thalweg::prelude::*;

/// How often a reader that is held back looks again.
const LOOK_EVERY: Micros = 2 * MILLI;

/// What a reader does behind its gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    /// Reads on, to the end.
    Open,
    /// Waits for [`Pace::lose_rows`].
    Closed,
    /// Reads one more batch, and keeps every checkpoint from completing: the batch will be lost.
    Losing,
}

/// What one source has seen, over all its readers.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Checkpoints that completed behind rows, one after the other, with rows left to read.
    passed: usize,
    /// Batches behind the gates.
    behind: usize,
}

#[derive(Debug)]
struct Shared {
    behind: Behind,
    sources: BTreeMap<String, Seen>,
}

/// How fast the sources of one run read.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Each reader waits for so many checkpoints, each behind further rows.
    gates: usize,
    shared: Arc<Mutex<Shared>>,
}

impl Pace {
    fn new(gates: usize, behind: Behind) -> Pace {
        Pace { gates, shared: Arc::new(Mutex::new(Shared { behind, sources: BTreeMap::new() })) }
    }

    /// As fast as it goes.
    pub fn free() -> Pace {
        Self::new(0, Behind::Open)
    }

    /// Each reader waits for `gates` checkpoints, then reads on.
    pub fn through(gates: usize) -> Pace {
        Self::new(gates, Behind::Open)
    }

    /// Each reader waits for `gates` checkpoints, then for [`Pace::lose_rows`].
    pub fn up_to(gates: usize) -> Pace {
        Self::new(gates, Behind::Closed)
    }

    /// From now on no checkpoint completes, and readers read one more batch.
    pub fn lose_rows(&self) {
        self.shared.lock().behind = Behind::Losing;
    }

    /// Whether every source has passed its gates.
    pub fn has_passed(&self) -> bool {
        self.shared.lock().sources.values().all(|seen| seen.passed >= self.gates)
    }

    /// Whether every source has read rows behind its gates.
    pub fn is_behind(&self) -> bool {
        self.shared.lock().sources.values().all(|seen| seen.behind > 0)
    }

    /// The source `name`, held to this pace.
    pub fn hold(&self, name: &str, source: Arc<dyn Source>) -> Paced {
        self.shared.lock().sources.insert(name.to_string(), Seen::default());
        Paced { source, name: name.to_string(), pace: self.clone() }
    }

    fn see(&self, name: &str, change: impl FnOnce(&mut Seen)) {
        change(self.shared.lock().sources.entry(name.to_string()).or_default());
    }
}

/// A source that reads at a pace.
pub struct Paced {
    source: Arc<dyn Source>,
    name: String,
    pace: Pace,
}

impl Source for Paced {
    fn name(&self) -> String {
        self.source.name()
    }

    fn output(&self) -> Result<EdgeSchema> {
        self.source.output()
    }

    fn side_outputs(&self) -> Result<Vec<EdgeSchema>> {
        self.source.side_outputs()
    }

    fn identity(&self) -> StateIdentity {
        self.source.identity()
    }

    fn enumerator(&self, restored: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        self.source.enumerator(restored)
    }

    fn discovery(&self) -> Result<Option<Box<dyn Discovery>>> {
        self.source.discovery()
    }

    fn reader(&self, cx: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(PacedReader {
            reader: self.source.reader(cx)?,
            name: self.name.clone(),
            pace: self.pace.clone(),
            passed: 0,
            waits: false,
            barrier: None,
        }))
    }

    fn describe(&self) -> String {
        self.source.describe()
    }
}

struct PacedReader {
    reader: Box<dyn SourceReader>,
    name: String,
    pace: Pace,
    passed: usize,
    /// Rows were read, and no checkpoint with them has completed since.
    waits: bool,
    /// The first checkpoint that holds them.
    barrier: Option<CheckpointId>,
}

impl PacedReader {
    fn is_held(&self) -> bool {
        if self.passed < self.pace.gates {
            return self.waits;
        }
        match self.pace.shared.lock().behind {
            Behind::Open => false,
            Behind::Closed => true,
            Behind::Losing => self.waits,
        }
    }
}

impl SourceReader for PacedReader {
    fn add_splits(&mut self, splits: Vec<SplitState>, cx: &mut ReaderContext<'_>) -> Result<()> {
        self.reader.add_splits(splits, cx)
    }

    fn release_splits(&mut self, splits: &[SplitId], cx: &mut ReaderContext<'_>) -> Result<Vec<SplitState>> {
        self.reader.release_splits(splits, cx)
    }

    fn no_more_splits(&mut self) {
        self.reader.no_more_splits();
    }

    fn message(&mut self, message: &[u8], cx: &mut ReaderContext<'_>) -> Result<()> {
        self.reader.message(message, cx)
    }

    fn poll(&mut self, cx: &mut ReaderContext<'_>) -> Result<ReaderStatus> {
        if self.is_held() {
            return Ok(ReaderStatus::Waiting(Some(cx.now() + LOOK_EVERY)));
        }
        let mut effects = Vec::new();
        let status = self.reader.poll(&mut ReaderContext::new(&mut effects, cx.now()))?;
        let has_rows = effects.iter().any(|effect| matches!(effect, ReaderEffect::Batch(..)));
        effects.into_iter().for_each(|effect| cx.effect(effect));
        if has_rows {
            (self.waits, self.barrier) = (true, None);
            if self.passed >= self.pace.gates {
                self.pace.see(&self.name, |seen| seen.behind += 1);
            }
        }
        Ok(status)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<Vec<SplitState>> {
        if self.pace.shared.lock().behind == Behind::Losing {
            return Err(Error::external("the rows are to be lost"));
        }
        self.barrier.get_or_insert(checkpoint);
        self.reader.snapshot(checkpoint)
    }

    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        if self.waits
            && self.passed < self.pace.gates
            && self.barrier.is_some_and(|first| first <= checkpoint)
        {
            self.waits = false;
            self.passed += 1;
            let passed = self.passed;
            self.pace.see(&self.name, |seen| seen.passed = seen.passed.max(passed));
        }
        self.reader.checkpoint_completed(checkpoint)
    }
}
