//! The rows of all slots, in chunks of 64 that are copied on write while a frozen snapshot shares
//! them. What may become of a slot stands in [`slot_state`](super::slot_state); here its bits are.

use std::sync::Arc;

use super::frozen_rows::{FrozenRows, ones};
use super::index::prefetch;
use super::slot_state::{Books, Changes, Event, Holdings, SlotState};

/// Slots of a chunk: the bits of a bitmap word.
pub(super) const CHUNK_SLOTS: usize = 64;

/// Up to this many bytes of dirty rows are copied at a freeze; above it their chunks are shared.
/// Sixteen mebibytes stream through in a few milliseconds, and leave nothing to copy afterwards.
pub const COPY_BYTES_MAX: usize = 16 * 1024 * 1024;

enum Words {
    Owned(Box<[u64]>),
    /// A frozen snapshot may still read them.
    Shared(Arc<Box<[u64]>>),
}

/// What a look-up touches of a chunk.
struct Chunk {
    words: Words,
    changes: Changes,
}

impl Chunk {
    #[inline]
    fn words(&self) -> &[u64] {
        match &self.words {
            Words::Owned(words) => words,
            Words::Shared(words) => words,
        }
    }

    /// The words, to be written. What had to be copied for it is added to `copied_words`.
    #[inline]
    fn words_mut(&mut self, copied_words: &mut usize) -> &mut [u64] {
        if let Words::Shared(_) = self.words {
            *copied_words += self.unshare();
        }
        match &mut self.words {
            Words::Owned(words) => words,
            Words::Shared(_) => &mut [],
        }
    }

    /// Makes the words the table's own; answers how many were copied.
    #[cold]
    fn unshare(&mut self) -> usize {
        let Words::Shared(shared) = &self.words else {
            return 0;
        };
        let shared = Arc::clone(shared);
        self.words = Words::Owned(Box::default());
        let (words, copied) = match Arc::try_unwrap(shared) {
            Ok(words) => (words, 0),
            Err(shared) => (shared.as_ref().clone(), shared.len()),
        };
        self.words = Words::Owned(words);
        copied
    }

    fn share(&mut self) -> Arc<Box<[u64]>> {
        let words = std::mem::replace(&mut self.words, Words::Owned(Box::default()));
        let shared = match words {
            Words::Owned(words) => Arc::new(words),
            Words::Shared(shared) => shared,
        };
        self.words = Words::Shared(shared.clone());
        shared
    }
}

/// Splits a slot into its chunk and its bit.
#[inline]
pub(super) fn split(slot: u32) -> (usize, u32) {
    (slot as usize / CHUNK_SLOTS, slot % CHUNK_SLOTS as u32)
}

/// The rows of all slots.
pub(super) struct Chunks {
    stride: usize,
    chunks: Vec<Chunk>,
    /// For each chunk what a look-up that finds its key does not need.
    holdings: Vec<Holdings>,
    /// Slots that are free again, and where the never used ones begin.
    free: Vec<u32>,
    unused: u32,
    dirty_count: usize,
    /// Words that were copied because a frozen snapshot shares them, since the last freeze.
    copied_words: usize,
    /// Chunks that no slot of is in use: they have no words.
    empty: usize,
}

impl Chunks {
    pub(super) fn new(stride: usize) -> Self {
        Chunks {
            stride,
            chunks: Vec::new(),
            holdings: Vec::new(),
            free: Vec::new(),
            unused: 0,
            dirty_count: 0,
            copied_words: 0,
            empty: 0,
        }
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Takes a free slot for a key; its row is zeroed.
    pub(super) fn insert(&mut self) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => {
                let (chunk, _) = split(slot);
                if self.chunks[chunk].words().is_empty() {
                    self.chunks[chunk].words = self.blank_words();
                    self.empty -= 1;
                }
                self.row_mut(slot).fill(0);
                slot
            }
            None => self.first_unused(),
        };
        self.happen(slot, Event::Insert);
        slot
    }

    fn blank_words(&self) -> Words {
        Words::Owned(vec![0; CHUNK_SLOTS * self.stride].into_boxed_slice())
    }

    fn first_unused(&mut self) -> u32 {
        let slot = self.unused;
        self.unused += 1;
        if split(slot).0 == self.chunks.len() {
            let words = self.blank_words();
            self.chunks.push(Chunk { words, changes: Changes::default() });
            self.holdings.push(Holdings::default());
        }
        slot
    }

    /// Gives a free slot's row back, and with the last one of a chunk its words.
    pub(super) fn release(&mut self, slot: u32) {
        debug_assert_eq!(self.state(slot), SlotState::FREE);
        self.free.push(slot);
        let (chunk, _) = split(slot);
        if self.holdings[chunk].used == 0 && !self.chunks[chunk].words().is_empty() {
            self.chunks[chunk].words = Words::Owned(Box::default());
            self.empty += 1;
        }
    }

    fn chunk_bytes(&self) -> usize {
        CHUNK_SLOTS * self.stride * 8 + size_of::<Chunk>() + size_of::<Holdings>()
    }

    /// Bytes that the rows take.
    pub(super) fn bytes(&self) -> usize {
        (self.chunks.len() - self.empty) * self.chunk_bytes()
    }

    /// Bytes that rows of so many keys more would take beside them.
    pub(super) fn growth_bytes(&self, additional: usize) -> usize {
        let blank = (self.chunks.len() - self.empty) * CHUNK_SLOTS - self.live();
        additional.saturating_sub(blank).div_ceil(CHUNK_SLOTS) * self.chunk_bytes()
    }

    /// Whether more than half of the rows that take memory are free.
    pub(super) fn is_sparse(&self) -> bool {
        self.live() * 2 < (self.chunks.len() - self.empty) * CHUNK_SLOTS
    }

    /// The state of a slot.
    pub(super) fn state(&self, slot: u32) -> SlotState {
        let (chunk, bit) = split(slot);
        match self.chunks.get(chunk) {
            Some(Chunk { changes, .. }) => {
                Books { changes: *changes, holdings: self.holdings[chunk] }.state(bit)
            }
            None => SlotState::FREE,
        }
    }

    /// Lets an event happen to a slot; one that cannot leaves it as it is. Answers its state. A slot
    /// that became free is to be released.
    pub(super) fn happen(&mut self, slot: u32, event: Event) -> SlotState {
        let before = self.state(slot);
        let after = before.after(event);
        debug_assert!(after.is_some(), "{event:?} of {before:?}");
        let Some(after) = after else { return before };
        let (chunk, bit) = split(slot);
        let mut books = self.books(chunk);
        books.set_state(bit, after);
        self.set_books(chunk, books);
        after
    }

    fn books(&self, chunk: usize) -> Books {
        Books { changes: self.chunks[chunk].changes, holdings: self.holdings[chunk] }
    }

    fn set_books(&mut self, chunk: usize, books: Books) {
        self.dirty_count -= self.chunks[chunk].changes.dirty.count_ones() as usize;
        self.dirty_count += books.changes.dirty.count_ones() as usize;
        self.chunks[chunk].changes = books.changes;
        self.holdings[chunk] = books.holdings;
    }

    #[inline]
    pub(super) fn row(&self, slot: u32) -> &[u64] {
        let (chunk, bit) = split(slot);
        let start = bit as usize * self.stride;
        &self.chunks[chunk].words()[start..start + self.stride]
    }

    /// The row, to be written: copies its chunk first when a snapshot shares it.
    #[inline]
    pub(super) fn row_mut(&mut self, slot: u32) -> &mut [u64] {
        let (chunk, bit) = split(slot);
        let start = bit as usize * self.stride;
        &mut self.chunks[chunk].words_mut(&mut self.copied_words)[start..start + self.stride]
    }

    /// The row, to be written, after [`Event::Touch`] of a slot in use.
    #[inline]
    pub(super) fn touch(&mut self, slot: u32) -> &mut [u64] {
        let (chunk, bit) = split(slot);
        let start = bit as usize * self.stride;
        let chunk = &mut self.chunks[chunk];
        let bit = 1 << bit;
        self.dirty_count += usize::from(chunk.changes.dirty & bit == 0);
        chunk.changes.dirty |= bit;
        chunk.changes.dead &= !bit;
        &mut chunk.words_mut(&mut self.copied_words)[start..start + self.stride]
    }

    /// Whether the key of a slot in use is deleted.
    #[inline]
    pub(super) fn is_dead(&self, slot: u32) -> bool {
        let (chunk, bit) = split(slot);
        self.chunks[chunk].changes.dead & (1 << bit) != 0
    }

    /// Whether a slot holds a key that is not deleted.
    pub(super) fn is_live(&self, slot: u32) -> bool {
        let (chunk, bit) = split(slot);
        let used = self.holdings.get(chunk).map_or(0, |holdings| holdings.used);
        used & (1 << bit) != 0 && !self.is_dead(slot)
    }

    /// Brings a row near: its first and its last word may lie in two cache lines.
    #[inline]
    pub(super) fn prefetch(&self, slot: u32) {
        if let [first, .., last] = self.row(slot) {
            prefetch(first);
            prefetch(last);
        }
    }

    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The bits of a chunk's dirty slots.
    pub(super) fn dirty_bits(&self, chunk: usize) -> u64 {
        self.chunks[chunk].changes.dirty
    }

    /// The bits of a chunk's slots in use.
    pub(super) fn used_bits(&self, chunk: usize) -> u64 {
        self.holdings[chunk].used
    }

    /// The bits of a chunk's slots that a helper is writing.
    pub(super) fn frozen_bits(&self, chunk: usize) -> u64 {
        self.holdings[chunk].frozen
    }

    /// How many slots are dirty.
    pub(super) fn dirty_count(&self) -> usize {
        self.dirty_count
    }

    /// Bytes that were copied since the last freeze because the frozen snapshot shares them.
    pub(super) fn copied_bytes(&self) -> usize {
        self.copied_words * 8
    }

    /// Slots in use.
    pub(super) fn live(&self) -> usize {
        self.unused as usize - self.free.len()
    }

    /// One past the highest slot ever used.
    pub(super) fn slot_end(&self) -> u32 {
        self.unused
    }

    /// The slots in use now; what happens to them meanwhile is nothing to this.
    pub(super) fn used(&self) -> impl Iterator<Item = u32> + use<> {
        let bits: Vec<u64> = self.holdings.iter().map(|holdings| holdings.used).collect();
        let slots =
            |(chunk, bits): (usize, u64)| ones(bits).map(move |bit| (chunk * CHUNK_SLOTS) as u32 + bit);
        bits.into_iter().enumerate().flat_map(slots)
    }

    /// Hands what is to be written out as it now is, and starts a new dirty set.
    pub(super) fn freeze(&mut self) -> FrozenRows {
        let stride = self.stride;
        let copy = self.dirty_count * stride * 8 <= COPY_BYTES_MAX;
        let mut frozen = FrozenRows::new(stride);
        let mut copied = Vec::with_capacity(if copy { self.dirty_count * stride } else { 0 });
        let mut writes = Vec::with_capacity(if copy { self.dirty_count } else { 0 });
        for (chunk, holdings) in self.chunks.iter_mut().zip(&mut self.holdings) {
            if chunk.changes.dirty == 0 {
                continue;
            }
            let mut books = Books { changes: chunk.changes, holdings: *holdings };
            let bits = books.freeze();
            (chunk.changes, *holdings) = (books.changes, books.holdings);
            if copy {
                for bit in ones(bits.rows) {
                    let start = bit as usize * stride;
                    copied.extend_from_slice(&chunk.words()[start..start + stride]);
                    writes.push(bits.write(bit));
                }
            } else {
                frozen.push_shared(chunk.share(), bits);
            }
        }
        if copy {
            frozen.push_copied(copied, writes);
        }
        self.dirty_count = 0;
        self.copied_words = 0;
        frozen
    }

    /// What was frozen is in the store, or nobody knows how much of it is. Answers the slots that
    /// became free, to be released.
    pub(super) fn settle(&mut self, written: bool) -> Vec<u32> {
        let mut freed = Vec::new();
        for chunk in 0..self.chunks.len() {
            if self.holdings[chunk].frozen == 0 {
                continue;
            }
            let mut books = self.books(chunk);
            let first = (chunk * CHUNK_SLOTS) as u32;
            freed.extend(ones(books.settle(written)).map(|bit| first + bit));
            self.set_books(chunk, books);
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot_state::{Memory, RowWrite, Stored};
    use super::*;

    fn rows_of(frozen: FrozenRows) -> Vec<u64> {
        let mut all = Vec::new();
        frozen
            .for_shares::<()>(100, |rows, writes| {
                assert_eq!(rows.len(), writes.len());
                assert!(writes.len() <= 100);
                assert!(writes.iter().all(|write| *write == RowWrite::PutWithTimers));
                all.extend_from_slice(rows);
                Ok(())
            })
            .unwrap();
        all
    }

    #[test]
    fn a_freeze_holds_the_rows_as_they_were_copied_or_shared() {
        // One word a row: 16 MiB is 2 Mi rows, so the second count is shared and the first copied.
        for count in [1_000, 2_200_000_u32] {
            let mut chunks = Chunks::new(1);
            for value in 0..count {
                let slot = chunks.insert();
                chunks.row_mut(slot)[0] = u64::from(value);
            }
            let frozen = chunks.freeze();
            assert_eq!(chunks.dirty_count(), 0);
            for slot in 0..count {
                chunks.row_mut(slot)[0] += 1;
            }
            assert_eq!(chunks.state(0), SlotState { memory: Memory::Clean, stored: Stored::Putting });
            assert!(rows_of(frozen).into_iter().eq(0..u64::from(count)));
            assert_eq!(chunks.row(5)[0], 6);
            assert!(chunks.settle(true).is_empty());
            assert_eq!(chunks.state(0), SlotState { memory: Memory::Clean, stored: Stored::Present });
        }
    }

    #[test]
    fn what_a_look_up_touches_of_a_chunk_is_half_a_cache_line() {
        assert_eq!(std::mem::size_of::<Chunk>(), 32);
    }

    #[test]
    fn a_released_slot_is_used_again_and_is_blank() {
        let mut chunks = Chunks::new(2);
        let slot = chunks.insert();
        chunks.touch(slot).copy_from_slice(&[7, 3]);
        assert_eq!(chunks.happen(slot, Event::Delete), SlotState::FREE);
        chunks.release(slot);
        assert_eq!((chunks.live(), chunks.dirty_count()), (0, 0));
        assert_eq!(chunks.insert(), slot);
        assert_eq!(chunks.row(slot), &[0, 0]);
    }
}
