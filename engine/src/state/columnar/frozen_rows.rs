//! Rows as they were at a freeze, on their way to a helper thread: copied, or in chunks that the
//! table still shares.

use std::sync::Arc;

use super::chunks::CHUNK_SLOTS;
use super::slot_state::{FrozenBits, RowWrite};

enum Piece {
    Copied { words: Vec<u64>, writes: Vec<RowWrite> },
    Shared { words: Arc<Box<[u64]>>, bits: FrozenBits },
}

/// Rows as they were at a freeze, each with what is to be written of it.
pub(super) struct FrozenRows {
    stride: usize,
    pieces: Vec<Piece>,
}

impl FrozenRows {
    pub(super) fn new(stride: usize) -> Self {
        FrozenRows { stride, pieces: Vec::new() }
    }

    pub(super) fn push_copied(&mut self, words: Vec<u64>, writes: Vec<RowWrite>) {
        self.pieces.push(Piece::Copied { words, writes });
    }

    pub(super) fn push_shared(&mut self, words: Arc<Box<[u64]>>, bits: FrozenBits) {
        self.pieces.push(Piece::Shared { words, bits });
    }

    /// Bytes of the rows that were copied at the freeze.
    pub(super) fn copied_bytes(&self) -> usize {
        let words = |piece: &Piece| match piece {
            Piece::Copied { words, .. } => words.capacity(),
            Piece::Shared { .. } => 0,
        };
        self.pieces.iter().map(words).sum::<usize>() * 8
    }

    /// Gives the rows in shares of at most `share_max`, with what is to be written of each; a
    /// shared chunk is let go as soon as its rows are given.
    pub(super) fn for_shares<E>(
        self,
        share_max: usize,
        mut give: impl FnMut(&[u64], &[RowWrite]) -> Result<(), E>,
    ) -> Result<(), E> {
        let stride = self.stride;
        let mut rows = Vec::new();
        let mut known = Vec::new();
        for piece in self.pieces {
            match piece {
                Piece::Copied { words, writes } => {
                    for (words, writes) in words.chunks(share_max * stride).zip(writes.chunks(share_max)) {
                        give(words, writes)?;
                    }
                }
                Piece::Shared { words, bits } => {
                    for bit in ones(bits.rows) {
                        let start = bit as usize * stride;
                        rows.extend_from_slice(&words[start..start + stride]);
                        known.push(bits.write(bit));
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

/// The positions of the bits that are set, ascending.
pub(super) fn ones(mut bits: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = bits.trailing_zeros();
        bits &= bits.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}
