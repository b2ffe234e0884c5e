//! A reader at the head of a task: its splits, their watermarks, and the effects that it left.
//!
//! The rule: the task's watermark is the minimum over the active splits. Until the first
//! assignment (an empty one too) the reader counts as active, so that nothing overtakes splits
//! that are still to come; afterwards a reader without splits is idle, unless it holds. A split is
//! idle by time only when it was asked all the while and had nothing: see [`Silence`].

use std::collections::{BTreeMap, VecDeque};

use super::Now;
use crate::checkpoint::CheckpointId;
use crate::event_time::RowTime;
use crate::graph::Uid;
use crate::metrics::Counter;
use crate::record::Batch;
use crate::source::{
    ReaderContext, ReaderEffect, ReaderStatus, SourceReader, SplitActivity, SplitId, SplitRun, SplitState,
};
use crate::time::{
    Micros, RisingWatermark, RowsReached, Silence, SplitWatermark, Watermark, WatermarkStrategy,
};
use crate::{Context, Result};

struct Split {
    /// `None` without event time.
    watermark: Option<SplitWatermark>,
    activity: SplitActivity,
    silence: Silence,
    reached: RowsReached,
}

impl Split {
    fn current(&self) -> Watermark {
        self.watermark.as_ref().map_or(Watermark::MIN, SplitWatermark::current)
    }
}

/// The event time of a source.
pub struct SourceTime {
    /// How rows get theirs.
    pub rows: RowTime,
    /// How each split's watermark is made.
    pub strategy: WatermarkStrategy,
    /// The side output of rows that lie too far ahead.
    pub ahead: u16,
}

/// What the head has for the task.
pub enum HeadEvent {
    /// Rows on an output.
    Batch(u16, Batch),
    /// The watermark rose.
    Watermark(Watermark),
    /// The reader takes no part in the watermark now, or does again.
    Idle(bool),
    /// Tell the enumerator.
    SplitFinished(SplitState),
    /// Tell the enumerator.
    Message(Vec<u8>),
    /// The reader is at its end.
    EndOfData,
    /// Poll again at once.
    Again,
    /// Poll again when woken or at this time.
    Waiting(Option<Micros>),
}

/// The reader of one task.
pub struct SourceHead {
    /// The source's stable name.
    pub uid: Uid,
    reader: Box<dyn SourceReader>,
    time: Option<SourceTime>,
    splits: BTreeMap<SplitId, Split>,
    effects: Vec<ReaderEffect>,
    queue: VecDeque<ReaderEffect>,
    pending: VecDeque<HeadEvent>,
    assigned: bool,
    held: bool,
    idle: bool,
    finished: bool,
    watermark: RisingWatermark,
    to_release: Vec<SplitId>,
    retired: Vec<Retired>,
    rows: Counter,
}

/// A split that was read to its end or given back. Until a checkpoint whose trigger came after
/// the coordinator heard of it, only this task's snapshots know where it ended.
struct Retired {
    split: SplitState,
    given_back: bool,
    /// The first checkpoint that holds it.
    since: Option<CheckpointId>,
}

impl SourceHead {
    /// A head without splits.
    pub fn new(
        uid: Uid,
        reader: Box<dyn SourceReader>,
        time: Option<SourceTime>,
        rows: Counter,
    ) -> SourceHead {
        SourceHead {
            uid,
            reader,
            time,
            splits: BTreeMap::new(),
            effects: Vec::new(),
            queue: VecDeque::new(),
            pending: VecDeque::new(),
            assigned: false,
            held: false,
            idle: false,
            finished: false,
            watermark: RisingWatermark::default(),
            to_release: Vec::new(),
            retired: Vec::new(),
            rows,
        }
    }

    /// Whether the end of data was reached.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes splits.
    ///
    /// # Errors
    /// The reader's.
    pub fn add_splits(&mut self, splits: Vec<SplitState>, now: Micros) -> Result<()> {
        self.assigned = true;
        for split in &splits {
            let fresh = Split {
                watermark: self.time.as_ref().map(|time| SplitWatermark::new(&time.strategy)),
                activity: SplitActivity::Active,
                silence: Silence::new(now),
                reached: RowsReached::default(),
            };
            self.splits.insert(split.id.clone(), fresh);
        }
        if !splits.is_empty() {
            self.with_reader(now, |reader, cx| reader.add_splits(splits, cx))?;
        }
        self.combine();
        Ok(())
    }

    /// Splits to give back at the next barrier.
    pub fn release_at_barrier(&mut self, splits: Vec<SplitId>) {
        self.to_release.extend(splits);
    }

    /// No split follows.
    pub fn no_more_splits(&mut self) {
        self.assigned = true;
        self.reader.no_more_splits();
        self.combine();
    }

    /// A message of the enumerator.
    ///
    /// # Errors
    /// The reader's.
    pub fn message(&mut self, message: &[u8], now: Micros) -> Result<()> {
        self.with_reader(now, |reader, cx| reader.message(message, cx))
    }

    /// At a barrier: the positions of all splits that this task answers for, and those among
    /// them that it gives back here.
    ///
    /// # Errors
    /// The reader's.
    pub fn snapshot(
        &mut self,
        checkpoint: CheckpointId,
        now: Micros,
    ) -> Result<(Vec<SplitState>, Vec<SplitState>)> {
        let asked = std::mem::take(&mut self.to_release);
        let asked: Vec<_> = asked.into_iter().filter(|split| self.splits.contains_key(split)).collect();
        if !asked.is_empty() {
            let mut released = Vec::new();
            self.with_reader(now, |reader, cx| {
                released = reader.release_splits(&asked, cx)?;
                Ok(())
            })?;
            for split in &asked {
                self.splits.remove(split);
            }
            let retire = |split| Retired { split, given_back: true, since: None };
            self.retired.extend(released.into_iter().map(retire));
            self.combine();
        }
        let mut all = self.reader.snapshot(checkpoint)?;
        for retired in &mut self.retired {
            retired.since.get_or_insert(checkpoint);
            all.push(retired.split.clone());
        }
        let given_back = self.retired.iter().filter(|retired| retired.given_back);
        Ok((all, given_back.map(|retired| retired.split.clone()).collect()))
    }

    /// A checkpoint was published.
    ///
    /// # Errors
    /// The reader's.
    pub fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.retired.retain(|retired| retired.since.is_none_or(|since| since > checkpoint));
        self.reader.checkpoint_completed(checkpoint)
    }

    /// The next event; polls the reader when nothing is left from the last poll.
    ///
    /// # Errors
    /// The reader's, or that a row's event time cannot be computed.
    pub fn next_event(&mut self, times: Now) -> Result<HeadEvent> {
        let now = times.monotonic;
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            if let Some(effect) = self.queue.pop_front() {
                self.effect(effect, times)?;
                continue;
            }
            if self.finished {
                return Ok(HeadEvent::Waiting(None));
            }
            let mut status = ReaderStatus::Ready;
            self.with_reader(now, |reader, cx| {
                status = reader.poll(cx)?;
                Ok(())
            })?;
            if !self.queue.is_empty() {
                continue;
            }
            match status {
                ReaderStatus::Ready => return Ok(HeadEvent::Again),
                ReaderStatus::Finished => {
                    self.finished = true;
                    if std::mem::take(&mut self.idle) {
                        self.pending.push_back(HeadEvent::Idle(false));
                    }
                    self.pending.push_back(HeadEvent::Watermark(Watermark::MAX));
                    self.pending.push_back(HeadEvent::EndOfData);
                }
                ReaderStatus::Waiting(until) => {
                    let ask_at = self.all_asked(now);
                    if self.pending.is_empty() {
                        return Ok(HeadEvent::Waiting(earliest(until, ask_at)));
                    }
                }
                ReaderStatus::Paused(until) => return Ok(HeadEvent::Waiting(Some(until))),
            }
        }
    }

    /// Whether rows or events of the last poll are still to be taken: positions are ahead of
    /// what was emitted, so a barrier has to wait for them.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty() || !self.queue.is_empty()
    }

    fn with_reader(
        &mut self,
        now: Micros,
        call: impl FnOnce(&mut dyn SourceReader, &mut ReaderContext<'_>) -> Result<()>,
    ) -> Result<()> {
        let result = call(self.reader.as_mut(), &mut ReaderContext::new(&mut self.effects, now));
        self.queue.extend(self.effects.drain(..));
        result.context(|| format!("source {}", self.uid))
    }

    fn effect(&mut self, effect: ReaderEffect, times: Now) -> Result<()> {
        let now = times.monotonic;
        match effect {
            ReaderEffect::Batch(batch, runs) => {
                self.rows.add(batch.row_count() as u64);
                self.rows_came(batch, &runs, times).context(|| format!("source {}", self.uid))?;
                self.combine();
            }
            ReaderEffect::Side(output, batch) => self.pending.push_back(HeadEvent::Batch(output, batch)),
            ReaderEffect::Asked(splits) => {
                if let Some(idle_after) = self.idle_after() {
                    for split in splits {
                        if let Some(split) = self.splits.get_mut(&split) {
                            split.silence.asked(now, idle_after);
                        }
                    }
                    self.combine();
                }
            }
            ReaderEffect::Activity(split, activity) => {
                if let Some(split) = self.splits.get_mut(&split) {
                    split.activity = activity;
                    split.silence.end(now);
                }
                self.combine();
            }
            ReaderEffect::Hold(held) => {
                self.held = held;
                self.combine();
            }
            ReaderEffect::SplitFinished(split) => {
                self.splits.remove(&split.id);
                self.retired.push(Retired { split: split.clone(), given_back: false, since: None });
                self.pending.push_back(HeadEvent::SplitFinished(split));
                self.combine();
            }
            ReaderEffect::Message(message) => self.pending.push_back(HeadEvent::Message(message)),
        }
        Ok(())
    }

    /// Takes in rows of splits, one run after the other.
    fn rows_came(&mut self, batch: Batch, runs: &[SplitRun], times: Now) -> Result<()> {
        for run in runs {
            if let Some(split) = self.splits.get_mut(&run.split) {
                split.silence.end(times.monotonic);
            }
        }
        let Some(time) = &self.time else {
            self.pending.push_back(HeadEvent::Batch(0, batch));
            return Ok(());
        };
        let splits = &mut self.splits;
        let mut of_rows = |times: &[Option<Micros>], by| {
            let mut limits = Vec::with_capacity(times.len());
            for run in runs {
                let of_run = &times[limits.len()..limits.len() + run.rows];
                match splits.get_mut(&run.split) {
                    Some(split) => limits.extend(split.reached.limits(of_run, by)),
                    None => limits.extend(of_run.iter().map(|_| Micros::MAX)),
                }
            }
            limits
        };
        let timed = time.rows.take(batch, times.now, &mut of_rows)?;
        let (mut given, mut row) = (0, 0);
        for run in runs {
            let left = timed.kept.as_ref().map_or(run.rows, |kept| kept.slice(given, run.rows).true_count());
            let split = self.splits.get_mut(&run.split).and_then(|split| split.watermark.as_mut());
            if let Some(watermark) = split {
                watermark.observe(timed.batch.records(), &timed.times, row..row + left)?;
            }
            given += run.rows;
            row += left;
        }
        let outputs = [(0, Some(timed.batch)), (time.ahead, timed.ahead)];
        let batches = outputs.into_iter().filter_map(|(output, batch)| Some((output, batch?)));
        let batches = batches.filter(|(_, batch)| batch.row_count() > 0);
        self.pending.extend(batches.map(|(output, batch)| HeadEvent::Batch(output, batch)));
        Ok(())
    }

    fn idle_after(&self) -> Option<Micros> {
        self.time.as_ref()?.strategy.idle_after
    }

    fn is_active(&self, split: &Split) -> bool {
        match split.activity {
            SplitActivity::Held => true,
            SplitActivity::Idle => false,
            SplitActivity::Active => {
                self.idle_after().is_none_or(|idle_after| !split.silence.is_idle(idle_after))
            }
        }
    }

    /// No split has anything. Returns when they are to be asked again, for their silence to count.
    fn all_asked(&mut self, now: Micros) -> Option<Micros> {
        let idle_after = self.idle_after()?;
        let mut ask_at = None;
        for split in self.splits.values_mut().filter(|split| split.activity == SplitActivity::Active) {
            split.silence.asked(now, idle_after);
            ask_at = earliest(ask_at, split.silence.ask_at(now, idle_after));
        }
        self.combine();
        ask_at
    }

    fn combine(&mut self) {
        let held = self.held || !self.assigned;
        let lowest = self.splits.values().filter(|split| self.is_active(split)).map(Split::current).min();
        let idle = !held && lowest.is_none() && !self.finished;
        if idle != self.idle {
            self.idle = idle;
            self.pending.push_back(HeadEvent::Idle(idle));
        }
        if let (false, Some(lowest), true) = (held, lowest, self.time.is_some())
            && let Some(risen) = self.watermark.rise(lowest)
        {
            self.pending.push_back(HeadEvent::Watermark(risen));
        }
    }
}

fn earliest(a: Option<Micros>, b: Option<Micros>) -> Option<Micros> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
#[path = "source_head_tests.rs"]
mod tests;
