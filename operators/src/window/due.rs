//! When windows are due: for each time, the slots of the windows in memory that fire or are
//! dropped then. An index, not state: after a restore it is empty, windows that come into memory
//! register again, and those in the store only are found by the store's timers.
//!
//! Costs 4 bytes per window in memory and an entry per distinct time. A slot may stand there that
//! was evicted or given to another window since, and may stand there twice; who takes it checks.

use std::collections::BTreeMap;

use thalweg_engine::time::Micros;

#[derive(Default)]
pub(super) struct DueIndex {
    slots: BTreeMap<Micros, Vec<u32>>,
}

impl DueIndex {
    /// Registers slots, given with their times; runs of one time cost one search.
    pub(super) fn extend(&mut self, due: impl Iterator<Item = (Micros, u32)>) {
        let mut due = due.peekable();
        while let Some((time, slot)) = due.next() {
            let slots = self.slots.entry(time).or_default();
            slots.push(slot);
            while let Some((_, slot)) = due.next_if(|(next, _)| *next == time) {
                slots.push(slot);
            }
        }
    }

    /// The earliest time.
    pub(super) fn first_time(&self) -> Option<Micros> {
        self.slots.first_key_value().map(|(time, _)| *time)
    }

    /// Takes the slots of a time.
    pub(super) fn take(&mut self, time: Micros) -> Vec<u32> {
        self.slots.remove(&time).unwrap_or_default()
    }
}
