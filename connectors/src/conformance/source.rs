//! What every bounded source owes: a restore from any snapshot goes on exactly there, at any
//! parallelism; splits that are given back go on exactly there; a split is reported finished once;
//! batches have the schema, their runs add up, and they are of bounded rows and bytes (H8); what a
//! discovery says twice counts once; and tasks may fail at any time (`restarts.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::graph::Uid;
use thalweg_engine::metrics::MetricGroup;
use thalweg_engine::operator::{SubtaskInfo, Waker};
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::runtime::{TARGET_BYTES, TARGET_ROWS};
use thalweg_engine::source::{
    Enumerator, EnumeratorAction, EnumeratorEvent, ReaderContext, ReaderEffect, ReaderOpenContext,
    ReaderStatus, Source, SourceReader, SplitId, SplitRun, SplitState,
};
use thalweg_engine::time::Micros;
use thalweg_engine::{Context, Result};

use super::restarts::check_restarts;
use super::{ComparableRow, broken, comparable_rows, ensure};

/// A source that has not ended after so many polls never does.
const POLLS_MAX: usize = 10_000_000;
/// A snapshot is taken and restored at about this many places of a run.
const RESTORES: usize = 12;

/// The rows of a bounded source, read by `parallelism` readers, sorted.
///
/// # Errors
/// Whatever the source answers with, and what it breaks.
pub fn rows_of(source: &dyn Source, parallelism: u32) -> Result<Vec<ComparableRow>> {
    let mut run = Run::start(source, parallelism, None)?;
    run.run_to_end()?;
    let mut rows: Vec<_> = run.rows.into_values().flatten().collect();
    rows.sort();
    Ok(rows)
}

/// The suite for one bounded source whose output does not change between reads.
pub struct SourceSuite {
    source: Arc<dyn Source>,
}

impl SourceSuite {
    /// The suite for this source.
    pub fn new(source: impl Source + 'static) -> SourceSuite {
        SourceSuite { source: Arc::new(source) }
    }

    /// Runs it.
    ///
    /// # Errors
    /// What is broken.
    pub fn check(&self) -> Result<()> {
        let source = self.source.as_ref();
        ensure(source.describe() == source.describe(), || "describe() is not stable".to_string())?;
        for parallelism in [1, 2, 3] {
            let mut straight = Run::start(source, parallelism, None)?;
            straight.run_to_end().context(|| format!("straight, parallelism {parallelism}"))?;
            for restored in BTreeSet::from([parallelism, 1, 3]) {
                self.check_restores(parallelism, restored, &straight)
                    .context(|| format!("parallelism {parallelism}, restored at {restored}"))?;
            }
            self.check_release(parallelism, &straight)
                .context(|| format!("splits given back, parallelism {parallelism}"))?;
        }
        check_restarts(&self.source)
    }

    fn check_restores(&self, parallelism: u32, restored: u32, straight: &Run<'_>) -> Result<()> {
        let stride = (straight.polls / RESTORES).max(1);
        for polls in (0..=straight.polls).step_by(stride) {
            let mut first = Run::start(self.source.as_ref(), parallelism, None)?;
            first.polls(polls)?;
            let snapshot = first.snapshot()?;
            // What is read after the snapshot is lost in the crash.
            let read_before = first.rows.clone();
            let finished_before = first.finished.clone();
            first.polls(2)?;
            let mut second = Run::start(self.source.as_ref(), restored, Some(snapshot))?;
            second.rows = read_before;
            second.finished = finished_before;
            second.run_to_end()?;
            same(&second, straight).context(|| format!("restored after {polls} polls"))?;
        }
        Ok(())
    }

    fn check_release(&self, parallelism: u32, straight: &Run<'_>) -> Result<()> {
        let mut run = Run::start(self.source.as_ref(), parallelism, None)?;
        let mut polls = 0;
        while polls < straight.polls {
            run.polls(2)?;
            polls += 2;
            run.move_splits()?;
        }
        run.run_to_end()?;
        same(&run, straight)
    }
}

fn same(run: &Run<'_>, straight: &Run<'_>) -> Result<()> {
    for (split, expected) in &straight.rows {
        let found = run.rows.get(split).map_or(0, Vec::len);
        ensure(run.rows.get(split) == Some(expected), || {
            format!(
                "split {split} delivered {found} rows that are not the {} of a straight run",
                expected.len()
            )
        })?;
    }
    ensure(run.rows.len() == straight.rows.len(), || {
        "there are splits that a straight run does not have".into()
    })?;
    ensure(run.finished == straight.finished, || "other splits were reported finished".to_string())
}

/// A source being read.
struct Run<'a> {
    source: &'a dyn Source,
    output: EdgeSchema,
    enumerator: Box<dyn Enumerator>,
    readers: Vec<Box<dyn SourceReader>>,
    /// Whether `Finished` was answered, by reader.
    ended: Vec<bool>,
    no_more_splits: bool,
    now: Micros,
    polls: usize,
    turn: usize,
    rows: BTreeMap<SplitId, Vec<ComparableRow>>,
    finished: BTreeSet<SplitId>,
    checkpoints: u64,
}

type Snapshot = (Vec<u8>, Vec<SplitState>);

impl<'a> Run<'a> {
    fn start(source: &'a dyn Source, parallelism: u32, restored: Option<Snapshot>) -> Result<Run<'a>> {
        let (enumerator, splits) = match restored {
            Some((bytes, splits)) => (source.enumerator(Some(&bytes))?, splits),
            None => (source.enumerator(None)?, Vec::new()),
        };
        let mut run = Run {
            source,
            output: source.output()?,
            enumerator,
            readers: Vec::new(),
            ended: vec![false; parallelism as usize],
            no_more_splits: false,
            now: 1_000_000_000,
            polls: 0,
            turn: 0,
            rows: BTreeMap::new(),
            finished: BTreeSet::new(),
            checkpoints: 0,
        };
        for subtask in 0..parallelism {
            let reader = run.open_reader(subtask, parallelism)?;
            run.readers.push(reader);
        }
        run.tell(EnumeratorEvent::Started { parallelism, splits })?;
        if let Some(mut discovery) = source.discovery()?
            && let Some(found) = discovery.look()?
        {
            let again = discovery.look()?;
            ensure(again.is_none_or(|again| again == found), || {
                "another look at the same world knows something else".to_string()
            })?;
            run.tell(EnumeratorEvent::Discovered(found.clone()))?;
            run.tell(EnumeratorEvent::Discovered(found))?;
        }
        Ok(run)
    }

    fn open_reader(&self, subtask: u32, parallelism: u32) -> Result<Box<dyn SourceReader>> {
        let info = SubtaskInfo {
            job: "conformance".into(),
            uid: Uid::new("source")?,
            subtask,
            parallelism,
            max_parallelism: 128,
            generation: 1,
            attempt: 1,
            claim: "test".into(),
        };
        let (waker, metrics) = (Waker::new(|| ()), MetricGroup::default());
        self.source.reader(&ReaderOpenContext { info: &info, waker: &waker, metrics: &metrics })
    }

    fn tell(&mut self, event: EnumeratorEvent) -> Result<()> {
        for action in self.enumerator.handle(event)? {
            match action {
                EnumeratorAction::Assign { subtask, splits } => {
                    let subtask = subtask as usize;
                    ensure(subtask < self.readers.len(), || format!("there is no reader {subtask}"))?;
                    self.with_reader(subtask, |reader, cx| reader.add_splits(splits, cx))?;
                }
                EnumeratorAction::Release { subtask, splits } => {
                    let released =
                        self.with_reader(subtask as usize, |reader, cx| reader.release_splits(&splits, cx))?;
                    let checkpoint = CheckpointId { generation: 1, number: self.checkpoints };
                    self.tell(EnumeratorEvent::Released { checkpoint, splits: released })?;
                }
                EnumeratorAction::NoMoreSplits => {
                    self.no_more_splits = true;
                    self.readers.iter_mut().for_each(|reader| reader.no_more_splits());
                }
                EnumeratorAction::ToReader { subtask, message } => {
                    self.with_reader(subtask as usize, |reader, cx| reader.message(&message, cx))?;
                }
            }
        }
        Ok(())
    }

    fn with_reader<T>(
        &mut self,
        index: usize,
        call: impl FnOnce(&mut dyn SourceReader, &mut ReaderContext<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut effects = Vec::new();
        let mut cx = ReaderContext::new(&mut effects, self.now);
        let answer = call(self.readers[index].as_mut(), &mut cx)?;
        for effect in effects {
            self.take(index, effect)?;
        }
        Ok(answer)
    }

    fn take(&mut self, reader: usize, effect: ReaderEffect) -> Result<()> {
        match effect {
            ReaderEffect::Batch(batch, runs) => self.take_batch(&batch, &runs),
            ReaderEffect::SplitFinished(split) => {
                ensure(self.finished.insert(split.id.clone()), || {
                    format!("split {} finished twice", split.id)
                })?;
                self.tell(EnumeratorEvent::Finished { subtask: reader as u32, split })
            }
            ReaderEffect::Message(message) => {
                self.tell(EnumeratorEvent::FromReader { subtask: reader as u32, message })
            }
            ReaderEffect::Asked(splits) => {
                let finished = splits.iter().find(|split| self.finished.contains(split));
                ensure(finished.is_none(), || format!("finished split {finished:?} was asked"))
            }
            ReaderEffect::Side(..) | ReaderEffect::Activity(..) | ReaderEffect::Hold(_) => Ok(()),
        }
    }

    fn take_batch(&mut self, batch: &Batch, runs: &[SplitRun]) -> Result<()> {
        ensure(batch.schema().fields() == self.output.schema.fields(), || {
            format!("a batch has the schema {:?}", batch.schema())
        })?;
        let total: usize = runs.iter().map(|run| run.rows).sum();
        ensure(total == batch.row_count(), || {
            format!("runs of {total} rows for {} rows", batch.row_count())
        })?;
        let (count, bytes) = (batch.row_count(), batch.rows_bytes());
        ensure(count == 1 || (count <= TARGET_ROWS && bytes <= 2 * TARGET_BYTES), || {
            format!("a batch of {count} rows and {bytes} bytes")
        })?;
        let mut rows = comparable_rows(batch.records())?.into_iter();
        for run in runs {
            ensure(!self.finished.contains(&run.split), || format!("rows of {} after its end", run.split))?;
            self.rows.entry(run.split.clone()).or_default().extend(rows.by_ref().take(run.rows));
        }
        Ok(())
    }

    /// Polls readers in turn, `count` times in all, or until all have ended.
    fn polls(&mut self, count: usize) -> Result<()> {
        let mut waiting = 0;
        let mut wake: Option<Micros> = None;
        for _ in 0..count {
            let Some(reader) = self.next_reader() else {
                return Ok(());
            };
            self.polls += 1;
            let status = self.with_reader(reader, |reader, cx| reader.poll(cx))?;
            match status {
                ReaderStatus::Ready => (waiting, wake) = (0, None),
                ReaderStatus::Finished => {
                    ensure(self.no_more_splits, || "Finished before no_more_splits".to_string())?;
                    self.ended[reader] = true;
                    (waiting, wake) = (0, None);
                }
                ReaderStatus::Waiting(until) => {
                    waiting += 1;
                    wake = [wake, until].into_iter().flatten().min();
                }
                ReaderStatus::Paused(until) => {
                    waiting += 1;
                    wake = Some(wake.map_or(until, |wake: Micros| wake.min(until)));
                }
            }
            // Everybody waits: time goes on to the first that wants to be woken.
            if waiting >= self.ended.iter().filter(|ended| !**ended).count() && waiting > 0 {
                let until = wake.ok_or_else(|| broken("all readers wait, and nobody will wake them"))?;
                ensure(until > self.now, || "a reader waits for a time that has passed".to_string())?;
                self.now = until;
                (waiting, wake) = (0, None);
            }
        }
        Ok(())
    }

    fn next_reader(&mut self) -> Option<usize> {
        let count = self.readers.len();
        let turns = (self.turn..self.turn + count).map(|turn| turn % count);
        let reader = turns.into_iter().find(|reader| !self.ended[*reader])?;
        self.turn = (reader + 1) % count;
        Some(reader)
    }

    fn run_to_end(&mut self) -> Result<()> {
        self.polls(POLLS_MAX)?;
        ensure(self.ended.iter().all(|ended| *ended), || format!("no end after {POLLS_MAX} polls"))
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        let enumerator = self.enumerator.snapshot();
        self.checkpoints += 1;
        let checkpoint = CheckpointId { generation: 1, number: self.checkpoints };
        let mut splits = Vec::new();
        for reader in &mut self.readers {
            let held = reader.snapshot(checkpoint)?;
            ensure(held == reader.snapshot(checkpoint)?, || "a snapshot changes without a poll".to_string())?;
            splits.extend(held);
        }
        let names: BTreeSet<_> = splits.iter().map(|split| &split.id).collect();
        ensure(names.len() == splits.len(), || "a split is held twice".to_string())?;
        let finished = names.iter().find(|name| self.finished.contains(**name));
        ensure(finished.is_none(), || format!("finished split {finished:?} is in a snapshot"))?;
        Ok((enumerator, splits))
    }

    /// Every reader that has not ended gives its splits to a fresh one in its place.
    fn move_splits(&mut self) -> Result<()> {
        let checkpoint = CheckpointId { generation: 1, number: self.checkpoints };
        for index in 0..self.readers.len() {
            if self.ended[index] {
                continue;
            }
            let held = self.readers[index].snapshot(checkpoint)?;
            let names: Vec<_> = held.iter().map(|split| split.id.clone()).collect();
            let released = self.with_reader(index, |reader, cx| reader.release_splits(&names, cx))?;
            ensure(sorted(&released) == sorted(&held), || "splits come back from elsewhere".to_string())?;
            let kept = self.readers[index].snapshot(checkpoint)?;
            ensure(kept.is_empty(), || "a split that was given back is still in the snapshot".to_string())?;
            self.readers[index] = self.open_reader(index as u32, self.readers.len() as u32)?;
            self.with_reader(index, |reader, cx| reader.add_splits(released, cx))?;
            if self.no_more_splits {
                self.readers[index].no_more_splits();
            }
        }
        Ok(())
    }
}

fn sorted(splits: &[SplitState]) -> Vec<SplitState> {
    let mut splits = splits.to_vec();
    splits.sort_by(|a, b| a.id.cmp(&b.id));
    splits
}
