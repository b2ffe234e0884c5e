//! Scores by definition, in `f64`.

use std::cmp::Ordering;

use super::reference::Reference;
use crate::op::Metric;

/// A vector of the reference and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scored {
    pub(super) row: u32,
    pub(super) score: f32,
}

/// Scores the reference's vectors for one query.
pub(super) struct Scorer<'a> {
    pub(super) reference: &'a Reference,
    pub(super) metric: Metric,
    pub(super) query: &'a [f32],
    pub(super) norm: f64,
}

impl Scorer<'_> {
    /// The `k` nearest of the rows that a scan found, of those that a scan leaves out, and, where
    /// that is too few, of what is left, which scores NaN.
    pub(super) fn candidates(&self, found: impl Iterator<Item = u32>, k: usize, nearest: &mut Vec<Scored>) {
        let left_out = self.reference.irregular(self.metric).iter().copied();
        nearest.extend(found.chain(left_out).map(|row| self.scored(row)));
        self.sort(nearest);
        let rows = self.reference.matrix().rows();
        if nearest.len() < k.min(rows) {
            let known: Vec<u32> = nearest.iter().map(|scored| scored.row).collect();
            let rest = (0..rows as u32).filter(|row| !known.contains(row));
            nearest.extend(rest.take(k - known.len()).map(|row| Scored { row, score: f32::NAN }));
            self.sort(nearest);
        }
        nearest.truncate(k);
    }

    /// The `k` nearest of all rows.
    pub(super) fn all(&self, k: usize, nearest: &mut Vec<Scored>) {
        let rows = self.reference.matrix().rows() as u32;
        // Kept to twice as many as are asked for, so that a long reference needs no more memory.
        for row in 0..rows {
            nearest.push(self.scored(row));
            if nearest.len() == 2 * k {
                self.sort(nearest);
                nearest.truncate(k);
            }
        }
        self.sort(nearest);
        nearest.truncate(k);
    }

    fn sort(&self, scored: &mut [Scored]) {
        let least_first = self.metric == Metric::L2;
        scored.sort_unstable_by(|a, b| {
            let by_score = match (a.score.is_nan(), b.score.is_nan()) {
                (false, false) if least_first => a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal),
                (false, false) => b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal),
                (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
            };
            by_score.then(a.row.cmp(&b.row))
        });
    }

    fn scored(&self, row: u32) -> Scored {
        let vector = self.reference.vector(row as usize);
        let score = match self.metric {
            Metric::Dot => dot(self.query, vector),
            Metric::L2 => sum(self.query, vector, |a, b| (a - b) * (a - b)),
            Metric::Cosine => match self.norm * norm(vector) {
                // Also where the other is infinite or NaN, for then the product is NaN.
                _ if self.norm == 0.0 || vector.iter().all(|x| *x == 0.0) => 0.0,
                norms => dot(self.query, vector) / norms,
            },
        };
        Scored { row, score: score as f32 }
    }
}

/// The norm of a vector.
pub(super) fn norm(vector: &[f32]) -> f64 {
    dot(vector, vector).sqrt()
}

fn dot(left: &[f32], right: &[f32]) -> f64 {
    sum(left, right, |a, b| a * b)
}

/// In eight strands, so that additions need not wait for each other.
#[inline(always)]
fn sum(left: &[f32], right: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut strands = [0.0; 8];
    let (lefts, rights) = (left.chunks_exact(8), right.chunks_exact(8));
    let rest = lefts.remainder().iter().zip(rights.remainder());
    let rest: f64 = rest.map(|(a, b)| term(f64::from(*a), f64::from(*b))).sum();
    for (left, right) in lefts.zip(rights) {
        for (strand, (a, b)) in strands.iter_mut().zip(left.iter().zip(right)) {
            *strand += term(f64::from(*a), f64::from(*b));
        }
    }
    strands.iter().sum::<f64>() + rest
}
