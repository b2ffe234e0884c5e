//! Dropping the copies that cross-cluster retries make, by record id (F13).
//!
//! A producer's sequence runs on without gaps over its epochs, so what has been seen of it is an
//! interval set that grows with gaps only. Its bounds are so many intervals a producer and so many
//! producers. The rule: at a bound a record passes and is counted; none is ever dropped that was
//! not surely seen before. A producer may be forgotten after a time of silence ([`Forget`]), and
//! is never by default. [`Deduplicator`] is for a reader outside a job; [`drop_copies`] is the same inside one, with its state in the checkpoint.

mod interval_set;
mod memory;
mod operator;
mod read_ids;

use std::collections::BTreeMap;

use crate::record_id::RecordId;

pub use interval_set::{Inserted, IntervalSet};
pub use operator::{Deduplicate, Forget, drop_copies};
pub use read_ids::ReadRecordIds;

/// Gaps that are remembered of one producer, unless the user says otherwise: about 0.5 MiB.
pub const INTERVALS_MAX: usize = 16 * 1024;
/// Producers that are remembered, unless the user says otherwise. One that left no gap takes about
/// a hundred bytes and its name.
pub const PRODUCERS_MAX: usize = 1 << 20;

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Not seen before.
    First,
    /// A copy: drop it.
    Copy,
    /// Not seen before, and not remembered: there is no room. Let it pass and count it.
    Unremembered,
}

/// Remembers the ids that it has seen; for readers outside a job.
///
/// ```
/// use thalweg_connectors::deduplicate::{Deduplicator, Verdict};
/// use thalweg_connectors::record_id::RecordId;
///
/// let mut seen = Deduplicator::new();
/// let id = RecordId { producer: "p", epoch: 1, sequence: 0 };
/// assert_eq!(seen.see(&id), Verdict::First);
/// assert_eq!(seen.see(&id), Verdict::Copy);
/// ```
#[derive(Clone, Debug)]
pub struct Deduplicator {
    producers: BTreeMap<String, IntervalSet>,
    intervals_max: usize,
    producers_max: usize,
    copies: u64,
    unremembered: u64,
}

impl Default for Deduplicator {
    fn default() -> Self {
        Self::new()
    }
}

impl Deduplicator {
    /// Nothing seen; [`INTERVALS_MAX`] intervals a producer, [`PRODUCERS_MAX`] producers.
    pub fn new() -> Self {
        Deduplicator {
            producers: BTreeMap::new(),
            intervals_max: INTERVALS_MAX,
            producers_max: PRODUCERS_MAX,
            copies: 0,
            unremembered: 0,
        }
    }

    /// Another bound of the intervals a producer.
    #[must_use]
    pub fn intervals_max(mut self, intervals: usize) -> Self {
        self.intervals_max = intervals;
        self
    }

    /// Another bound of the producers.
    #[must_use]
    pub fn producers_max(mut self, producers: usize) -> Self {
        self.producers_max = producers;
        self
    }

    /// Forgets a producer of whom no copy can come any more.
    pub fn forget(&mut self, producer: &str) {
        self.producers.remove(producer);
    }

    /// Takes a record's id in and says whether it is a copy.
    pub fn see(&mut self, id: &RecordId<'_>) -> Verdict {
        if !self.producers.contains_key(id.producer) && self.producers.len() < self.producers_max {
            self.producers.insert(id.producer.to_owned(), IntervalSet::new());
        }
        let Some(set) = self.producers.get_mut(id.producer) else {
            self.unremembered += 1;
            return Verdict::Unremembered;
        };
        match set.insert(id.sequence, self.intervals_max) {
            Inserted::New => Verdict::First,
            Inserted::Known => {
                self.copies += 1;
                Verdict::Copy
            }
            Inserted::Full => {
                self.unremembered += 1;
                Verdict::Unremembered
            }
        }
    }

    /// Copies seen.
    pub fn copies(&self) -> u64 {
        self.copies
    }

    /// Records that passed without being remembered.
    pub fn unremembered(&self) -> u64 {
        self.unremembered
    }

    /// Producers seen, with the number of intervals that each takes.
    pub fn producers(&self) -> impl Iterator<Item = (&str, usize)> {
        self.producers.iter().map(|(producer, set)| (producer.as_str(), set.interval_count()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f13_copies_are_dropped_and_the_bound_lets_records_pass() {
        let mut seen = Deduplicator::new().intervals_max(1);
        let id = |producer, sequence| RecordId { producer, epoch: sequence / 2, sequence };
        for sequence in 0..10 {
            assert_eq!(seen.see(&id("a", sequence)), Verdict::First);
            assert_eq!(seen.see(&id("b", sequence)), Verdict::First);
        }
        assert_eq!(seen.see(&id("a", 4)), Verdict::Copy);
        assert_eq!(seen.see(&id("a", 20)), Verdict::Unremembered);
        assert_eq!(seen.see(&id("a", 20)), Verdict::Unremembered, "never dropped unseen");
        assert_eq!(seen.see(&id("a", 10)), Verdict::First);
        assert_eq!((seen.copies(), seen.unremembered()), (1, 2));
        assert_eq!(seen.producers().collect::<Vec<_>>(), [("a", 1), ("b", 1)]);
    }

    #[test]
    fn f13_a_producer_beyond_the_bound_passes_until_another_one_is_forgotten() {
        let mut seen = Deduplicator::new().producers_max(1);
        let id = |producer| RecordId { producer, epoch: 1, sequence: 0 };
        assert_eq!(seen.see(&id("a")), Verdict::First);
        assert_eq!([seen.see(&id("b")), seen.see(&id("b"))], [Verdict::Unremembered; 2]);
        assert_eq!(seen.see(&id("a")), Verdict::Copy, "who is known stays known");
        seen.forget("a");
        assert_eq!([seen.see(&id("b")), seen.see(&id("b"))], [Verdict::First, Verdict::Copy]);
        assert_eq!((seen.copies(), seen.unremembered()), (2, 2));
    }
}
