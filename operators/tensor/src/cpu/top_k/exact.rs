//! Scores by definition, in `f64`.

use std::cmp::Ordering;

use super::reference::Reference;
use crate::cpu::isa::kernel;
use crate::cpu::lanes::Lanes;
use crate::op::Metric;
use crate::reference_terms::{dot, square_distance};

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
    /// The `k` nearest of the rows that a scan found, with their copies, of those that a scan leaves
    /// out, and, where that is too few, of what is left, which scores NaN.
    pub(super) fn candidates(&self, found: impl Iterator<Item = u32>, k: usize, nearest: &mut Vec<Scored>) {
        let left_out = self.reference.terms(self.metric).irregular.iter().copied();
        for row in found.chain(left_out) {
            let scored = self.scored(row);
            nearest.push(scored);
            // Copies come after the first, so no more of them than are asked for can matter.
            let copies = self.reference.copies().of(row).iter().take(k);
            nearest.extend(copies.map(|row| Scored { row: *row, ..scored }));
        }
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

    fn sort(&self, scored: &mut [Scored]) {
        scored.sort_unstable_by(|a, b| self.order(*a, *b));
    }

    /// By score, the nearest first and NaN last; of equal scores the lower row first.
    fn order(&self, a: Scored, b: Scored) -> Ordering {
        let by_score = match (a.score.is_nan(), b.score.is_nan()) {
            (false, false) if self.metric == Metric::L2 => {
                a.score.partial_cmp(&b.score).unwrap_or(Ordering::Equal)
            }
            (false, false) => b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal),
            (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
        };
        by_score.then(a.row.cmp(&b.row))
    }

    #[inline(always)]
    fn scored(&self, row: u32) -> Scored {
        let vector = self.reference.vector(row as usize);
        let score = match self.metric {
            Metric::Dot => dot(self.query, vector),
            Metric::L2 => square_distance(self.query, vector),
            Metric::Cosine => match (self.norm, self.reference.norms()[row as usize]) {
                // Also where the other is infinite or NaN.
                (0.0, _) | (_, 0.0) => 0.0,
                (norm, other) => dot(self.query, vector) / (norm * other),
            },
        };
        Scored { row, score: score as f32 }
    }
}

kernel! {
    /// The `k` nearest of all rows.
    pub(super) fn nearest_of_all = score_all(scorer: &Scorer<'_>, k: usize, nearest: &mut Vec<Scored>)
}

#[inline(always)]
fn score_all<S: Lanes>(_: S, scorer: &Scorer<'_>, k: usize, nearest: &mut Vec<Scored>) {
    let rows = scorer.reference.matrix().rows() as u32;
    if scorer.metric == Metric::Cosine && scorer.norm == 0.0 {
        nearest.extend((0..rows).take(k).map(|row| Scored { row, score: 0.0 }));
        return;
    }
    // Kept to twice as many as are asked for, so that a long reference needs no more memory.
    let mut last: Option<Scored> = None;
    for row in 0..rows {
        let scored = scorer.scored(row);
        if last.is_some_and(|last| scorer.order(last, scored).is_lt()) {
            continue;
        }
        nearest.push(scored);
        if nearest.len() == 2 * k {
            scorer.sort(nearest);
            nearest.truncate(k);
            last = nearest.last().copied();
        }
    }
    scorer.sort(nearest);
    nearest.truncate(k);
}
