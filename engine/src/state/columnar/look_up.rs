//! The look-up of a batch: keys in, slots out, in three passes over blocks of rows. The first
//! prefetches buckets, the second reads them and prefetches rows, the third compares.

use super::arena::{Arena, NO_BYTES};
use super::chunks::Chunks;
use super::index::Index;
use super::key::Keys;
use super::layout::{DELETED, EPOCH_MASK, HEADER, Layout, OCCUPIED};

/// Rows that are prefetched together: enough to hide a cache miss, few enough to stay near.
const BLOCK_ROWS: usize = 64;

/// Stands in [`Touched::slots`] for a key that is deleted, where deleted keys stay so.
pub(super) const NO_SLOT: u32 = u32::MAX;

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
    pub(super) layout: &'a Layout,
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
        touched.slots.reserve(rows);
        let mut tags = [0_u32; BLOCK_ROWS];
        for start in (0..rows).step_by(BLOCK_ROWS) {
            let block = &mut tags[..BLOCK_ROWS.min(rows - start)];
            for (offset, tag) in block.iter_mut().enumerate() {
                *tag = keys.tag(start + offset);
                self.index.prefetch(*tag);
            }
            for tag in block.iter() {
                if let Some(slot) = self.index.guess(*tag) {
                    self.chunks.prefetch(slot);
                }
            }
            for (offset, tag) in block.iter().enumerate() {
                let slot = self.find_one(keys, start + offset, *tag, touched, missing);
                touched.slots.push(slot);
            }
        }
    }

    #[inline]
    fn find_one<K: Keys>(
        &mut self,
        keys: &K,
        row: usize,
        tag: u32,
        touched: &mut Touched,
        missing: &mut Vec<u32>,
    ) -> u32 {
        let mut probe = self.index.probe(tag);
        while let Some(slot) = self.index.next(&mut probe, tag) {
            let words = self.chunks.row(slot);
            if !keys.matches(row, words, self.arena) {
                continue;
            }
            let header = words[HEADER];
            if header & EPOCH_MASK == self.epoch {
                return slot;
            }
            if header & DELETED != 0 {
                if !self.revive {
                    return NO_SLOT;
                }
                self.blank(slot);
                touched.created.push(slot);
            }
            let words = self.chunks.row_dirty(slot);
            words[HEADER] = (header & !(EPOCH_MASK | DELETED)) | self.epoch;
            touched.changed.push(slot);
            touched.first_rows.push(row as u32);
            return slot;
        }
        let slot = self.chunks.allocate();
        let words = self.chunks.row_dirty(slot);
        let flags = keys.write(row, words, self.arena);
        words[HEADER] = (u64::from(tag) << 32) | OCCUPIED | flags | self.epoch;
        self.index.insert(tag, slot);
        touched.changed.push(slot);
        touched.first_rows.push(row as u32);
        missing.push(slot);
        slot
    }

    /// Zeroes the state of a slot.
    #[cold]
    fn blank(&mut self, slot: u32) {
        blank(self.chunks, self.arena, self.layout, slot);
    }
}

/// Zeroes the state of a slot and lets go of its bytes.
pub(super) fn blank(chunks: &mut Chunks, arena: &mut Arena, layout: &Layout, slot: u32) {
    let words = chunks.row_dirty(slot);
    for &handle in layout.handles.iter().filter(|&&word| word >= layout.state) {
        arena.release(words[handle]);
        words[handle] = NO_BYTES;
    }
    words[layout.state..].fill(0);
}
