//! The look-up of a batch: keys in, slots out, in three passes over blocks of rows. The first
//! prefetches buckets, the second finds the slot by its tag and prefetches its row, the third
//! compares the keys.

use super::arena::{Arena, NO_BYTES};
use super::chunks::Chunks;
use super::index::{Index, Probe};
use super::key::Keys;
use super::layout::{EPOCH_MASK, HEADER, Layout};

/// Rows that are prefetched together: enough to hide a cache miss, few enough to stay near.
const BLOCK_ROWS: usize = 64;

/// Stands in [`Touched::slots`] for a key that is deleted, where deleted keys stay so.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// The first slot with a row's tag, and where to look for the next.
#[derive(Clone, Copy, Default)]
struct Candidate {
    probe: Probe,
    slot: Option<u32>,
}

/// What a look-up found. Kept by the caller and used again, so that no batch allocates.
#[derive(Debug, Default)]
pub struct Touched {
    /// The slot of each row.
    pub slots: Vec<u32>,
    /// The distinct slots, in the order of their first rows.
    pub changed: Vec<u32>,
    /// For each of `changed`, its first row.
    pub first_rows: Vec<u32>,
    /// Those of `changed` whose key had no state: all their state words are zero.
    pub created: Vec<u32>,
    /// Those of `changed` whose state came from the store.
    pub loaded: Vec<u32>,
}

impl Touched {
    fn reserve(&mut self, rows: usize) {
        self.slots.reserve(rows);
        self.changed.reserve(rows);
        self.first_rows.reserve(rows);
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.changed.clear();
        self.first_rows.clear();
        self.created.clear();
        self.loaded.clear();
    }
}

/// The parts of a table that a look-up works on.
pub(super) struct Finder<'a> {
    pub(super) index: &'a mut Index,
    pub(super) chunks: &'a mut Chunks,
    pub(super) arena: &'a mut Arena,
    /// The number of this look-up, in a header's bits.
    pub(super) epoch: u64,
    /// Whether a deleted key comes to life again.
    pub(super) revive: bool,
}

impl Finder<'_> {
    /// Finds `rows` keys. New ones get a slot, which is added to `missing`: the store may know them.
    pub(super) fn find<K: Keys>(
        &mut self,
        keys: &K,
        rows: usize,
        touched: &mut Touched,
        missing: &mut Vec<u32>,
    ) {
        self.index.reserve(rows);
        touched.reserve(rows);
        let mut tags = [0_u32; BLOCK_ROWS];
        let mut found = [Candidate::default(); BLOCK_ROWS];
        for start in (0..rows).step_by(BLOCK_ROWS) {
            let block = BLOCK_ROWS.min(rows - start);
            let (tags, found) = (&mut tags[..block], &mut found[..block]);
            for (offset, tag) in tags.iter_mut().enumerate() {
                *tag = keys.tag(start + offset);
                self.index.prefetch(*tag);
            }
            for (tag, found) in tags.iter().zip(found.iter_mut()) {
                found.probe = self.index.probe(*tag);
                found.slot = self.index.next(&mut found.probe, *tag);
                if let Some(slot) = found.slot {
                    self.chunks.prefetch(slot);
                }
            }
            for (offset, (tag, found)) in tags.iter().zip(found.iter()).enumerate() {
                let slot = self.find_one(keys, start + offset, *tag, *found, touched, missing);
                touched.slots.push(slot);
            }
        }
    }

    /// The slot of one row; `candidate` is what the second pass found, before the rows of this block
    /// that came earlier got theirs.
    #[inline]
    fn find_one<K: Keys>(
        &mut self,
        keys: &K,
        row: usize,
        tag: u32,
        candidate: Candidate,
        touched: &mut Touched,
        missing: &mut Vec<u32>,
    ) -> u32 {
        let Candidate { mut probe, mut slot } = candidate;
        if slot.is_none() {
            // An earlier row of the block may have brought the key.
            probe = self.index.probe(tag);
            slot = self.index.next(&mut probe, tag);
        }
        while let Some(found) = slot {
            let words = self.chunks.row(found);
            if keys.matches(row, words, self.arena) {
                return self.touch(found, words[HEADER], row, touched);
            }
            slot = self.index.next(&mut probe, tag);
        }
        let slot = self.chunks.insert();
        let words = self.chunks.row_mut(slot);
        let flags = keys.write(row, words, self.arena);
        words[HEADER] = (u64::from(tag) << 32) | flags | self.epoch;
        self.index.insert(tag, slot);
        touched.changed.push(slot);
        touched.first_rows.push(row as u32);
        missing.push(slot);
        slot
    }

    /// Notes that a row is of a slot that is there.
    #[inline(always)]
    fn touch(&mut self, slot: u32, header: u64, row: usize, touched: &mut Touched) -> u32 {
        if header & EPOCH_MASK == self.epoch {
            return slot;
        }
        if self.chunks.is_dead(slot) {
            if !self.revive {
                return NO_SLOT;
            }
            touched.created.push(slot);
        }
        let words = self.chunks.touch(slot);
        words[HEADER] = (header & !EPOCH_MASK) | self.epoch;
        touched.changed.push(slot);
        touched.first_rows.push(row as u32);
        slot
    }
}

/// Zeroes the state of a slot and lets go of its bytes.
pub(super) fn blank(chunks: &mut Chunks, arena: &mut Arena, layout: &Layout, slot: u32) {
    let words = chunks.row_mut(slot);
    for &handle in layout.handles.iter().filter(|&&word| word >= layout.state) {
        arena.release(words[handle]);
        words[handle] = NO_BYTES;
    }
    words[layout.state..].fill(0);
}
