//! The rows of all slots, in chunks of 64 that are copied on write while a frozen snapshot shares
//! them, with a bitmap per chunk of what is dirty and one of what the store may hold.

use std::sync::Arc;

use super::index::prefetch;
use super::layout::{HEADER, OCCUPIED};

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

pub(super) struct Chunk {
    words: Words,
    /// Changed since the last freeze or write-back.
    pub(super) dirty: u64,
    /// The store may hold the slot's key.
    pub(super) stored: u64,
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
    /// Slots that are free again, and where the never used ones begin.
    free: Vec<u32>,
    unused: u32,
    dirty_count: usize,
    /// Words that were copied because a frozen snapshot shares them, since the last freeze.
    copied_words: usize,
}

impl Chunks {
    pub(super) fn new(stride: usize) -> Self {
        Chunks { stride, chunks: Vec::new(), free: Vec::new(), unused: 0, dirty_count: 0, copied_words: 0 }
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Takes a free slot; its row is zeroed.
    pub(super) fn allocate(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.row_mut(slot).fill(0);
            return slot;
        }
        let slot = self.unused;
        self.unused += 1;
        if split(slot).0 == self.chunks.len() {
            let words = vec![0; CHUNK_SLOTS * self.stride].into_boxed_slice();
            self.chunks.push(Chunk { words: Words::Owned(words), dirty: 0, stored: 0 });
        }
        slot
    }

    /// Gives a slot back.
    pub(super) fn release(&mut self, slot: u32) {
        self.row_mut(slot)[HEADER] = 0;
        self.clear_dirty(slot);
        let (chunk, bit) = split(slot);
        self.chunks[chunk].stored &= !(1 << bit);
        self.free.push(slot);
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

    /// The row, to be written, marked dirty.
    #[inline]
    pub(super) fn row_dirty(&mut self, slot: u32) -> &mut [u64] {
        let (chunk, bit) = split(slot);
        let start = bit as usize * self.stride;
        let chunk = &mut self.chunks[chunk];
        let bit = 1 << bit;
        self.dirty_count += usize::from(chunk.dirty & bit == 0);
        chunk.dirty |= bit;
        &mut chunk.words_mut(&mut self.copied_words)[start..start + self.stride]
    }

    /// Brings a row near: its first and its last word may lie in two cache lines.
    #[inline]
    pub(super) fn prefetch(&self, slot: u32) {
        if let [first, .., last] = self.row(slot) {
            prefetch(first);
            prefetch(last);
        }
    }

    pub(super) fn is_dirty(&self, slot: u32) -> bool {
        let (chunk, bit) = split(slot);
        self.chunks[chunk].dirty & (1 << bit) != 0
    }

    pub(super) fn clear_dirty(&mut self, slot: u32) {
        let (chunk, bit) = split(slot);
        let bit = 1 << bit;
        self.dirty_count -= usize::from(self.chunks[chunk].dirty & bit != 0);
        self.chunks[chunk].dirty &= !bit;
    }

    pub(super) fn is_stored(&self, slot: u32) -> bool {
        let (chunk, bit) = split(slot);
        self.chunks[chunk].stored & (1 << bit) != 0
    }

    pub(super) fn set_stored(&mut self, slot: u32) {
        let (chunk, bit) = split(slot);
        self.chunks[chunk].stored |= 1 << bit;
    }

    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The bits of a chunk's dirty slots.
    pub(super) fn dirty_bits(&self, chunk: usize) -> u64 {
        self.chunks[chunk].dirty
    }

    /// Makes slots dirty again whose writing failed.
    pub(super) fn mark_dirty(&mut self, chunk: usize, bits: u64) {
        let dirty = &mut self.chunks[chunk].dirty;
        self.dirty_count += (bits & !*dirty).count_ones() as usize;
        *dirty |= bits;
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

    pub(super) fn is_occupied(&self, slot: u32) -> bool {
        self.row(slot)[HEADER] & OCCUPIED != 0
    }

    /// Hands the dirty rows out as they now are, and starts a new dirty set. The bitmaps say per
    /// chunk which slots they were; `stored` bits in the result are those from before.
    pub(super) fn freeze(&mut self) -> (FrozenRows, Vec<u64>) {
        let stride = self.stride;
        let copy = self.dirty_count * stride * 8 <= COPY_BYTES_MAX;
        let mut frozen = FrozenRows { stride, pieces: Vec::new() };
        let mut copied = Vec::with_capacity(if copy { self.dirty_count * stride } else { 0 });
        let mut copied_stored = Vec::with_capacity(if copy { self.dirty_count } else { 0 });
        let mut bits = vec![0; self.chunks.len()];
        for (chunk, bits) in self.chunks.iter_mut().zip(&mut bits).filter(|(chunk, _)| chunk.dirty != 0) {
            *bits = std::mem::take(&mut chunk.dirty);
            if copy {
                for bit in ones(*bits) {
                    let start = bit as usize * stride;
                    copied.extend_from_slice(&chunk.words()[start..start + stride]);
                    copied_stored.push(chunk.stored & (1 << bit) != 0);
                }
            } else {
                let stored = chunk.stored;
                frozen.pieces.push(Piece::Shared { words: chunk.share(), dirty: *bits, stored });
            }
            chunk.stored |= *bits;
        }
        if copy {
            frozen.pieces.push(Piece::Copied { words: copied, stored: copied_stored });
        }
        self.dirty_count = 0;
        self.copied_words = 0;
        (frozen, bits)
    }
}

/// The positions of the bits that are set, ascending.
pub(super) fn ones(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}

enum Piece {
    Copied { words: Vec<u64>, stored: Vec<bool> },
    Shared { words: Arc<Box<[u64]>>, dirty: u64, stored: u64 },
}

/// Rows as they were at a freeze.
pub(super) struct FrozenRows {
    stride: usize,
    pieces: Vec<Piece>,
}

impl FrozenRows {
    /// Bytes of the rows that were copied at the freeze.
    pub(super) fn copied_bytes(&self) -> usize {
        let words = |piece: &Piece| match piece {
            Piece::Copied { words, .. } => words.len(),
            Piece::Shared { .. } => 0,
        };
        self.pieces.iter().map(words).sum::<usize>() * 8
    }

    /// Gives the rows in shares of at most `share_max`, with whether the store may hold each; a
    /// shared chunk is let go as soon as its rows are given.
    pub(super) fn for_shares<E>(
        self,
        share_max: usize,
        mut give: impl FnMut(&[u64], &[bool]) -> Result<(), E>,
    ) -> Result<(), E> {
        let stride = self.stride;
        let mut rows = Vec::new();
        let mut known = Vec::new();
        for piece in self.pieces {
            match piece {
                Piece::Copied { words, stored } => {
                    for (words, stored) in words.chunks(share_max * stride).zip(stored.chunks(share_max)) {
                        give(words, stored)?;
                    }
                }
                Piece::Shared { words, dirty, stored } => {
                    for bit in ones(dirty) {
                        let start = bit as usize * stride;
                        rows.extend_from_slice(&words[start..start + stride]);
                        known.push(stored & (1 << bit) != 0);
                    }
                    drop(words);
                    if known.len() + CHUNK_SLOTS > share_max {
                        give(&rows, &known)?;
                        rows.clear();
                        known.clear();
                    }
                }
            }
        }
        if known.is_empty() { Ok(()) } else { give(&rows, &known) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(frozen: FrozenRows) -> Vec<u64> {
        let mut all = Vec::new();
        frozen
            .for_shares::<()>(100, |rows, stored| {
                assert_eq!(rows.len(), stored.len());
                assert!(stored.len() <= 100);
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
                let slot = chunks.allocate();
                chunks.row_dirty(slot)[0] = u64::from(value);
            }
            let (frozen, bits) = chunks.freeze();
            assert_eq!(chunks.dirty_count(), 0);
            for slot in 0..count {
                chunks.row_mut(slot)[0] += 1;
            }
            assert!(chunks.is_stored(0));
            assert_eq!(bits.iter().map(|bits| bits.count_ones()).sum::<u32>(), count);
            assert!(rows_of(frozen).into_iter().eq(0..u64::from(count)));
            assert_eq!(chunks.row(5)[0], 6);
        }
    }

    #[test]
    fn a_chunk_costs_no_more_than_its_pointer_and_bitmaps() {
        assert_eq!(std::mem::size_of::<Chunk>(), 32);
    }

    #[test]
    fn a_released_slot_is_used_again_and_is_blank() {
        let mut chunks = Chunks::new(2);
        let slot = chunks.allocate();
        chunks.row_dirty(slot).copy_from_slice(&[OCCUPIED, 3]);
        chunks.release(slot);
        assert_eq!((chunks.live(), chunks.dirty_count()), (0, 0));
        assert_eq!(chunks.allocate(), slot);
        assert_eq!(chunks.row(slot), &[0, 0]);
    }
}
