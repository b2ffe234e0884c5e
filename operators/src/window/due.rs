//! When windows are due: for each time, the slots of the windows in memory that fire or are
//! dropped then. An index, not state: a window registers when it begins. Once it has been evicted
//! the store has its timers, and it is found by these, also after a restore, when this is empty.
//!
//! Costs 4 to 8 bytes per window in memory and an entry per distinct time. A slot may stand there
//! that was evicted or given to another window since, and may stand there twice: who takes it
//! checks, and a compaction leaves them out when they are more than the others.

use std::collections::BTreeMap;

use thalweg_engine::time::Micros;

/// Below this many slots a compaction is not worth its pass.
const COMPACT_SLOTS_MIN: usize = 64 * 1024;

#[derive(Default)]
pub(super) struct DueIndex {
    slots: BTreeMap<Micros, Vec<u32>>,
    count: usize,
}

impl DueIndex {
    /// Registers slots, given with their times; runs of one time cost one search.
    pub(super) fn extend(&mut self, due: impl Iterator<Item = (Micros, u32)>) {
        let mut due = due.peekable();
        while let Some((time, slot)) = due.next() {
            let slots = self.slots.entry(time).or_default();
            let before = slots.len();
            slots.push(slot);
            while let Some((_, slot)) = due.next_if(|(next, _)| *next == time) {
                slots.push(slot);
            }
            self.count += slots.len() - before;
        }
    }

    /// The earliest time.
    pub(super) fn first_time(&self) -> Option<Micros> {
        self.slots.first_key_value().map(|(time, _)| *time)
    }

    /// Takes the slots of a time.
    pub(super) fn take(&mut self, time: Micros) -> Vec<u32> {
        let slots = self.slots.remove(&time).unwrap_or_default();
        self.count -= slots.len();
        slots
    }

    /// Leaves out what is void, when `live` windows are in memory and far more slots stand here.
    /// `is_due` says whether a slot still holds a window that is due at the time.
    pub(super) fn compact(&mut self, live: usize, is_due: impl Fn(Micros, u32) -> bool) {
        if self.count <= COMPACT_SLOTS_MIN + 2 * live {
            return;
        }
        self.slots.retain(|&time, slots| {
            slots.sort_unstable();
            slots.dedup();
            slots.retain(|&slot| is_due(time, slot));
            slots.shrink_to_fit();
            !slots.is_empty()
        });
        self.count = self.slots.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_leaves_what_is_due_once() {
        let mut due = DueIndex::default();
        let slots = 0..COMPACT_SLOTS_MIN as u32;
        due.extend(slots.clone().map(|slot| (5, slot)));
        due.extend([(5, 7), (9, 7), (9, 8)].into_iter());
        due.compact(10, |_, _| false);
        assert_eq!(due.count, COMPACT_SLOTS_MIN + 3, "too few to bother");
        due.compact(1, |time, slot| time == 5 && slot < 8);
        assert_eq!(due.first_time(), Some(5));
        assert_eq!(due.take(5), (0..8).collect::<Vec<_>>());
        assert_eq!((due.first_time(), due.count), (None, 0));
    }
}
