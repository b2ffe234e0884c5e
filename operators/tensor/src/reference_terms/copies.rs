//! Vectors that stand in a reference several times.
//!
//! Copies score alike, whatever the query: only the first is scanned, and the others stand behind it
//! in the answer. So they do not crowd other vectors out of the candidates.

use std::collections::HashMap;

use super::Vectors;
use crate::hashing::splitmix64;

/// The further copies of each vector that has some.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    /// By the first copy's row, in the order of rows.
    of: HashMap<u32, Vec<u32>>,
    /// A bit per row: whether it is a further copy. Empty where there are none.
    is_copy: Vec<u64>,
    count: usize,
}

impl Copies {
    /// Finds them by their norms, then, where these are equal, by a hash. Vectors that are not finite
    /// are left out.
    pub(super) fn find(vectors: Vectors<'_>, norms: &[f64]) -> Copies {
        let vector = |row: u32| vectors.row(row as usize);
        let is_same = |a: u32, b: u32| vector(a).iter().map(bits).eq(vector(b).iter().map(bits));
        let finite = norms.iter().zip(0..).filter(|(norm, _)| norm.is_finite());
        let mut by_norm: Vec<(u64, u32)> = finite.map(|(norm, row)| (norm.to_bits(), row)).collect();
        by_norm.sort_unstable();
        let mut copies = Copies::default();
        for alike in by_norm.chunk_by_mut(|a, b| a.0 == b.0).filter(|alike| alike.len() > 1) {
            for (key, row) in alike.iter_mut() {
                *key = hash(vector(*row));
            }
            alike.sort_unstable();
            // Where hashes of others are between them some copies go unfound, and are scanned.
            for same in alike.chunk_by(|a, b| a.0 == b.0 && is_same(a.1, b.1)) {
                copies.add(same, norms.len());
            }
        }
        copies
    }

    fn add(&mut self, same: &[(u64, u32)], rows: usize) {
        let [(_, first), others @ ..] = same else { return };
        if others.is_empty() {
            return;
        }
        self.is_copy.resize(rows.div_ceil(64), 0);
        for (_, row) in others {
            self.is_copy[*row as usize / 64] |= 1 << (row % 64);
        }
        self.count += others.len();
        self.of.insert(*first, others.iter().map(|(_, row)| *row).collect());
    }

    /// Whether the same vector stands in an earlier row.
    pub(super) fn is_copy(&self, row: u32) -> bool {
        self.is_copy.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// The further copies of a row.
    pub(crate) fn of(&self, row: u32) -> &[u32] {
        if self.of.is_empty() { &[] } else { self.of.get(&row).map_or(&[], Vec::as_slice) }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.is_copy[..])
            + self.count * size_of::<u32>()
            + self.of.capacity() * size_of::<(u32, Vec<u32>)>()
    }
}

fn bits(element: &f32) -> u32 {
    element.to_bits()
}

fn hash(vector: &[f32]) -> u64 {
    vector.iter().fold(0, |hash, element| splitmix64(hash ^ u64::from(bits(element))))
}
