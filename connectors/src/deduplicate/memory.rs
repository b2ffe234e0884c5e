//! What the operator remembers, as keyed state: of each producer an interval set and when it was
//! last heard of; of each key group how many producers it has.
//!
//! The rules: a bound is kept by not remembering, never by dropping a record that was not surely
//! seen; who is forgotten is counted. The number of producers is kept by key group, under a key
//! that no producer has, so it moves with its key group to any parallelism.

use serde::{Deserialize, Serialize};
use thalweg_engine::Result;
use thalweg_engine::metrics::Counter;
use thalweg_engine::operator::{OpenContext, Step};
use thalweg_engine::state::key_encoding::hash_key;
use thalweg_engine::state::{KeyGroup, KeyedState, KeyedStateSpec, StateSize, ValueState};
use thalweg_engine::time::{Micros, Watermark};

use super::interval_set::{Inserted, IntervalSet};
use super::operator::{Deduplicate, Forget};

/// Producers that are looked at in one step.
const STEP_PRODUCERS_MAX: usize = 1_024;
/// The key of a key group's own count: no encoded producer is empty.
const GROUP_KEY: &[u8] = &[];

/// What is remembered of a producer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Producer {
    seen: IntervalSet,
    /// When it was last heard of, in the clock by which it is forgotten: the watermark of then
    /// (the lowest, while there was none), or processing time.
    last: Micros,
    /// Whether a timer is set for it.
    timed: bool,
}

impl StateSize for Producer {
    fn state_size(&self) -> usize {
        size_of::<Self>() - size_of::<IntervalSet>() + self.seen.state_size()
    }
}

/// Records of one producer, one behind the other.
pub(super) struct Run<'a> {
    /// The producer, encoded, and its hash.
    pub(super) key: &'a [u8],
    pub(super) hash: u64,
    pub(super) sequences: &'a [u64],
}

/// What became of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) copies: u64,
    pub(super) unremembered: u64,
}

pub(super) struct Memory {
    keyed: KeyedState,
    producers: ValueState<Producer>,
    counts: ValueState<u64>,
    max_parallelism: u32,
    intervals_max: usize,
    group_producers_max: u64,
    forget: Forget,
    forgotten: Counter,
}

impl Memory {
    /// Opens the state, restored.
    pub(super) fn open(cx: &mut OpenContext<'_>, config: &Deduplicate) -> Result<Memory> {
        let mut keyed = cx.keyed_state(KeyedStateSpec::of_backend(cx.backend.as_ref()))?;
        let max_parallelism = cx.info.max_parallelism;
        let share = (config.producers_max as u64).div_ceil(u64::from(max_parallelism.max(1)));
        Ok(Memory {
            producers: keyed.value("producers")?,
            counts: keyed.value("producer_counts")?,
            keyed,
            max_parallelism,
            intervals_max: config.intervals_max,
            group_producers_max: share,
            forget: config.forget,
            forgotten: cx
                .metrics
                .counter("producers_forgotten_total", "Producers forgotten after a time of silence."),
        })
    }

    pub(super) fn keyed(&mut self) -> &mut KeyedState {
        &mut self.keyed
    }

    /// Takes a run in, and says in `pass` (all true before) which of its records are copies.
    pub(super) fn see(
        &mut self,
        run: &Run<'_>,
        watermark: Watermark,
        now: Micros,
        pass: &mut [bool],
    ) -> Result<Seen> {
        let last = match self.forget {
            Forget::AfterEventTime(_) => watermark.0,
            Forget::AfterProcessingTime(_) | Forget::Never => now,
        };
        self.keyed.set_current_key(run.hash, run.key);
        if self.producers.get(&mut self.keyed)?.is_none() {
            if !self.count(run.hash, 1)? {
                return Ok(Seen { copies: 0, unremembered: run.sequences.len() as u64 });
            }
            self.keyed.set_current_key(run.hash, run.key);
        }
        let (intervals_max, times) = (self.intervals_max, self.forget != Forget::Never);
        let (seen, due) = self.producers.modify(&mut self.keyed, |producer| {
            let producer = producer.get_or_insert_default();
            producer.last = if producer.timed { producer.last.max(last) } else { last };
            let due = (times && !producer.timed).then_some(producer.last);
            producer.timed |= times;
            let mut seen = Seen::default();
            for (&sequence, passes) in run.sequences.iter().zip(pass) {
                match producer.seen.insert(sequence, intervals_max) {
                    Inserted::New => {}
                    Inserted::Known => {
                        *passes = false;
                        seen.copies += 1;
                    }
                    Inserted::Full => seen.unremembered += 1,
                }
            }
            (seen, due)
        })?;
        if let Some(last) = due {
            self.set_timer(last)?;
        }
        Ok(seen)
    }

    /// Counts a producer of this hash's key group in or out; false when there is no room for it.
    /// The group's key is the current one then.
    fn count(&mut self, hash: u64, by: i64) -> Result<bool> {
        // One hash for all of a group: its number, which is in the group.
        let group = KeyGroup::of_hash(hash, self.max_parallelism).0;
        self.keyed.set_current_key(u64::from(group), GROUP_KEY);
        let count = self.counts.get(&mut self.keyed)?.copied().unwrap_or_default();
        if by > 0 && count >= self.group_producers_max {
            return Ok(false);
        }
        self.counts.set(&mut self.keyed, count.saturating_add_signed(by))?;
        Ok(true)
    }

    /// Sets the current producer's timer.
    fn set_timer(&mut self, last: Micros) -> Result<()> {
        match self.forget {
            Forget::Never => Ok(()),
            Forget::AfterEventTime(idle) => self.keyed.register_event_timer(last.saturating_add(idle), &[]),
            Forget::AfterProcessingTime(idle) => {
                self.keyed.register_processing_timer(last.saturating_add(idle), &[])
            }
        }
    }

    /// Forgets those of whom nothing was heard for long enough, some in a step.
    pub(super) fn forget(&mut self, watermark: Watermark, now: Micros) -> Result<Step> {
        for _ in 0..STEP_PRODUCERS_MAX {
            let (due, idle) = match self.forget {
                Forget::Never => return Ok(Step::Done),
                Forget::AfterEventTime(idle) => (self.keyed.next_due_event_timer(watermark)?, idle),
                Forget::AfterProcessingTime(idle) => (self.keyed.next_due_processing_timer(now)?, idle),
            };
            let Some(due) = due else { return Ok(Step::Done) };
            let Some(last) = self.producers.get(&mut self.keyed)?.map(|producer| producer.last) else {
                continue;
            };
            if last == Micros::MIN {
                // Heard of before the first watermark: its silence begins here.
                self.producers.modify(&mut self.keyed, |producer| {
                    producer.iter_mut().for_each(|producer| producer.last = watermark.0);
                })?;
                self.set_timer(watermark.0)?;
                continue;
            }
            if last.saturating_add(idle) > due.time {
                self.set_timer(last)?;
                continue;
            }
            self.producers.clear(&mut self.keyed)?;
            let hash = hash_key(self.keyed.current_key());
            self.count(hash, -1)?;
            self.forgotten.add(1);
        }
        Ok(Step::More)
    }

    /// When the next timer of processing time is due.
    pub(super) fn wake_at(&mut self) -> Result<Option<Micros>> {
        self.keyed.earliest_processing_timer()
    }
}
