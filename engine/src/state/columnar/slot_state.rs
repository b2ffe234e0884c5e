//! What memory and the store know of the key in a slot, and what may become of that: one table,
//! [`SlotState::after`], and the same for the 64 slots of a chunk at once, [`Books`].
//!
//! ```text
//! memory    Free      no key
//!           Clean     nothing to write that is not frozen
//!           Changed   to be written
//!           Deleted   to be deleted
//!           Leaving   its delete is frozen and on its way
//! store     Absent    neither the row nor its timers are there
//!           Present   both are
//!           Unsure    a write broke off: perhaps the row is there, perhaps some of its timers
//!           Putting   a helper writes the row; what was there before no longer matters
//!           Deleting  a helper deletes row and timers
//! ```
//!
//! The rule that follows: a row's timers are written with it unless the store is known to have
//! them, and a delete is left out only where the store is known to have nothing.

/// What memory has of a slot's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Free,
    Clean,
    Changed,
    Deleted,
    Leaving,
}

/// What the store has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Absent,
    Present,
    Unsure,
    Putting,
    Deleting,
}

/// What happens to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "some happen to 64 slots at once; tests hold that to the table")
)]
pub(super) enum Event {
    /// A key takes the slot; the store is not known to have it.
    Insert,
    /// The store had it.
    Load,
    /// The task changes it; a deleted key begins anew.
    Touch,
    /// The task deletes it.
    Delete,
    /// A barrier hands it to a helper if it is to be written.
    Freeze,
    /// The helper is done: all was written, or nobody knows how much.
    Settle { written: bool },
    /// The task has written it.
    Write,
    /// The task forgets it.
    Evict,
}

/// What is written of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowWrite {
    /// The row; the store has its timers.
    Put,
    /// The row and its timers.
    PutWithTimers,
    /// The deletes of both.
    Delete,
}

/// Memory and store together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotState {
    pub(super) memory: Memory,
    pub(super) stored: Stored,
}

impl SlotState {
    pub(super) const FREE: SlotState = SlotState { memory: Memory::Free, stored: Stored::Absent };

    /// The table. `None`: the event cannot happen in this state.
    pub(super) fn after(self, event: Event) -> Option<SlotState> {
        use {Memory as M, Stored as S};
        let (memory, stored) = match (event, self.memory, self.stored) {
            (Event::Insert, M::Free, S::Absent) => (M::Changed, S::Absent),
            (Event::Load, M::Changed, S::Absent) => (M::Changed, S::Present),
            (Event::Touch, M::Clean | M::Changed | M::Deleted | M::Leaving, stored) => (M::Changed, stored),
            (Event::Delete, M::Changed, S::Absent) => (M::Free, S::Absent),
            (Event::Delete, M::Clean | M::Changed, stored) => (M::Deleted, stored),
            (Event::Freeze, M::Changed, S::Absent | S::Present | S::Unsure) => (M::Clean, S::Putting),
            (Event::Freeze, M::Deleted, S::Present | S::Unsure) => (M::Leaving, S::Deleting),
            (Event::Freeze, M::Free, S::Absent) => (M::Free, S::Absent),
            (Event::Freeze, M::Clean, S::Present) => (M::Clean, S::Present),
            (Event::Settle { written: true }, memory, S::Putting) => (memory, S::Present),
            (Event::Settle { written: true }, M::Deleted | M::Leaving, S::Deleting) => (M::Free, S::Absent),
            (Event::Settle { written: true }, memory, S::Deleting) => (memory, S::Absent),
            (Event::Settle { written: false }, memory, S::Putting | S::Deleting) => match memory {
                M::Clean => (M::Changed, S::Unsure),
                M::Leaving => (M::Deleted, S::Unsure),
                memory => (memory, S::Unsure),
            },
            (Event::Settle { .. }, memory, stored) => (memory, stored),
            (Event::Write, M::Changed, S::Absent | S::Present | S::Unsure) => (M::Clean, S::Present),
            (Event::Write, M::Deleted, S::Present | S::Unsure) => (M::Free, S::Absent),
            (Event::Evict, M::Clean, S::Present) => (M::Free, S::Absent),
            _ => return None,
        };
        Some(SlotState { memory, stored })
    }

    /// What has to be written to bring the store up; `None` where nothing has to.
    pub(super) fn write(self) -> Option<RowWrite> {
        match (self.memory, self.stored) {
            (Memory::Changed, Stored::Present) => Some(RowWrite::Put),
            (Memory::Changed, _) => Some(RowWrite::PutWithTimers),
            (Memory::Deleted, _) => Some(RowWrite::Delete),
            _ => None,
        }
    }
}

/// What the task looks at with every row that it changes, for 64 slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Changed or deleted.
    pub(super) dirty: u64,
    /// Deleted or leaving.
    pub(super) dead: u64,
}

/// The states of 64 slots. Without a freeze `held` says that the store may have a key; in a freeze,
/// that it will.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    pub(super) used: u64,
    held: u64,
    unsure: u64,
    pub(super) frozen: u64,
}

/// The states of a chunk's slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Books {
    pub(super) changes: Changes,
    pub(super) holdings: Holdings,
}

/// What a freeze hands out of a chunk, a bit for each slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FrozenBits {
    pub(super) rows: u64,
    deletes: u64,
    with_timers: u64,
}

impl FrozenBits {
    pub(super) fn write(self, bit: u32) -> RowWrite {
        let is = |bits: u64| bits & (1 << bit) != 0;
        match (is(self.deletes), is(self.with_timers)) {
            (true, _) => RowWrite::Delete,
            (false, true) => RowWrite::PutWithTimers,
            (false, false) => RowWrite::Put,
        }
    }
}

fn set(bits: &mut u64, bit: u32, to: bool) {
    *bits = (*bits & !(1 << bit)) | (u64::from(to) << bit);
}

impl Books {
    pub(super) fn state(self, bit: u32) -> SlotState {
        let is = |bits: u64| bits & (1 << bit) != 0;
        let Books { changes, holdings } = self;
        let memory = match (is(holdings.used), is(changes.dead), is(changes.dirty)) {
            (false, ..) => Memory::Free,
            (true, false, false) => Memory::Clean,
            (true, false, true) => Memory::Changed,
            (true, true, true) => Memory::Deleted,
            (true, true, false) => Memory::Leaving,
        };
        let stored = match (is(holdings.frozen), is(holdings.held), is(holdings.unsure)) {
            (false, false, _) => Stored::Absent,
            (false, true, false) => Stored::Present,
            (false, true, true) => Stored::Unsure,
            (true, true, _) => Stored::Putting,
            (true, false, _) => Stored::Deleting,
        };
        SlotState { memory, stored }
    }

    pub(super) fn set_state(&mut self, bit: u32, state: SlotState) {
        let SlotState { memory, stored } = state;
        set(&mut self.holdings.used, bit, memory != Memory::Free);
        set(&mut self.changes.dirty, bit, matches!(memory, Memory::Changed | Memory::Deleted));
        set(&mut self.changes.dead, bit, matches!(memory, Memory::Deleted | Memory::Leaving));
        set(&mut self.holdings.frozen, bit, matches!(stored, Stored::Putting | Stored::Deleting));
        let held = matches!(stored, Stored::Present | Stored::Unsure | Stored::Putting);
        set(&mut self.holdings.held, bit, held);
        set(&mut self.holdings.unsure, bit, stored == Stored::Unsure);
    }

    /// [`Event::Freeze`] for all slots, and what is to be written of them.
    pub(super) fn freeze(&mut self) -> FrozenBits {
        let Books { changes, holdings } = self;
        let rows = changes.dirty;
        let puts = rows & !changes.dead;
        let with_timers = puts & (!holdings.held | holdings.unsure);
        changes.dirty = 0;
        holdings.frozen = rows;
        holdings.held = (holdings.held & !rows) | puts;
        holdings.unsure &= !rows;
        FrozenBits { rows, deletes: rows & !puts, with_timers }
    }

    /// [`Event::Settle`] for all slots. Answers those that became free.
    pub(super) fn settle(&mut self, written: bool) -> u64 {
        let Books { changes, holdings } = self;
        let frozen = std::mem::take(&mut holdings.frozen);
        if !written {
            changes.dirty |= frozen;
            holdings.held |= frozen;
            holdings.unsure |= frozen;
            return 0;
        }
        let freed = frozen & !holdings.held & changes.dead;
        changes.dirty &= !freed;
        changes.dead &= !freed;
        holdings.used &= !freed;
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: [Memory; 5] =
        [Memory::Free, Memory::Clean, Memory::Changed, Memory::Deleted, Memory::Leaving];
    const STORED: [Stored; 5] =
        [Stored::Absent, Stored::Present, Stored::Unsure, Stored::Putting, Stored::Deleting];
    const EVENTS: [Event; 9] = [
        Event::Insert,
        Event::Load,
        Event::Touch,
        Event::Delete,
        Event::Freeze,
        Event::Settle { written: true },
        Event::Settle { written: false },
        Event::Write,
        Event::Evict,
    ];

    /// Every state that a free slot can come to.
    fn legal() -> Vec<SlotState> {
        let mut all = vec![SlotState::FREE];
        let mut next = 0;
        while let Some(&state) = all.get(next) {
            for after in EVENTS.iter().filter_map(|event| state.after(*event)) {
                if !all.contains(&after) {
                    all.push(after);
                }
            }
            next += 1;
        }
        all
    }

    #[test]
    fn thirteen_of_twenty_five_combinations_can_be() {
        let legal = legal();
        for memory in MEMORY {
            for stored in STORED {
                let expected = match memory {
                    Memory::Free => stored == Stored::Absent,
                    Memory::Clean => matches!(stored, Stored::Present | Stored::Putting),
                    Memory::Changed => true,
                    Memory::Deleted => stored != Stored::Absent,
                    Memory::Leaving => stored == Stored::Deleting,
                };
                assert_eq!(legal.contains(&SlotState { memory, stored }), expected, "{memory:?} {stored:?}");
            }
        }
        assert_eq!(legal.len(), 13);
    }

    #[test]
    fn the_bits_of_a_chunk_say_what_the_table_says() {
        for (bit, &state) in (0..).step_by(4).zip(&legal()) {
            let mut books = Books::default();
            books.set_state(bit, state);
            assert_eq!(books.state(bit), state);
            assert_eq!(books.state(bit + 1), SlotState::FREE, "the neighbour");
            if let Some(after) = state.after(Event::Freeze) {
                let mut frozen = books;
                let bits = frozen.freeze();
                assert_eq!(frozen.state(bit), after);
                let write = (bits.rows & (1 << bit) != 0).then(|| bits.write(bit));
                assert_eq!(write, state.write(), "{state:?}");
            }
            for written in [true, false] {
                let mut settled = books;
                let freed = settled.settle(written);
                let after = state.after(Event::Settle { written }).unwrap();
                assert_eq!(settled.state(bit), after, "{state:?} {written}");
                let is_freed = after == SlotState::FREE && state != SlotState::FREE;
                assert_eq!(freed, u64::from(is_freed) << bit, "{state:?} {written}");
            }
        }
    }

    #[test]
    fn a_key_revived_while_its_delete_is_written_gets_its_timers_again() {
        let after = |state: SlotState, event| state.after(event).unwrap();
        let present = SlotState { memory: Memory::Clean, stored: Stored::Present };
        let revived = [Event::Delete, Event::Freeze, Event::Touch].into_iter().fold(present, after);
        for written in [true, false] {
            let settled = after(revived, Event::Settle { written });
            assert_eq!(settled.write(), Some(RowWrite::PutWithTimers), "{written}");
        }
    }
}
