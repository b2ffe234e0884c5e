//! How far a scan's score may be from the one by definition, for one query.
//!
//! A scan leaves out all but its best candidates. They are the right ones if even the best of what
//! was left out, its score taken as far off as rounding can have made it, stays behind the last that
//! the answer needs. Everything here is the usual analysis (Higham, Accuracy and Stability of
//! Numerical Algorithms, section 3.1): a sum of `n` products in `f32` is off by no more than
//! `n u / (1 - n u)` times the sum of their sizes, which is at most the product of the norms.

use crate::op::Metric;
use crate::reference_terms::{self, EXACT, Extent, Terms, grain};

/// Half a unit in the last place of an `f32`, of 1.
const UNIT: f64 = 1.0 / 16_777_216.0;
/// The least `f32`, which a product that underflows may be off by; twice that.
const LEAST: f64 = 2.8e-45;

/// What is at least this does not underflow, multiplied by any factor of a vector.
const UNDERFLOW: f64 = 1e-20;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// Nothing is rounded: the scan's order is that of the definition, ties included.
    Exact,
    /// A score is `scanned * scale`, but for so many times itself.
    Relative { scale: f64, times: f64 },
    /// A score is `scanned`, but for so much.
    Absolute { off: f64 },
    /// The square of a distance is `constant - scanned`, but for so much.
    Distance { constant: f64, off: f64 },
}

impl Bound {
    /// Of a query as it is scanned, and as it is given.
    pub(super) fn new(metric: Metric, terms: &Terms, scanned: &[f32], query: &[f32]) -> Bound {
        let steps = scanned.len() as f64 + 8.0;
        let sum = match steps * UNIT {
            off if off < 0.5 => off / (1.0 - off),
            _ => f64::INFINITY,
        };
        let (norm, extent) = (reference_terms::norm(scanned), &terms.extent);
        let underflow = steps * LEAST;
        match metric {
            Metric::Dot if sums_exactly(query, norm, extent) => Bound::Exact,
            Metric::Dot => Bound::Absolute { off: sum * norm * extent.norm + underflow },
            // Only the vector's norm and the score are rounded, and a score of 0 stays one.
            Metric::Cosine if sums_exactly(query, reference_terms::norm(query), extent) => {
                Bound::Relative { scale: 1.0 / norm, times: 4.0 * UNIT }
            }
            // The query is of norm 1, and so are the vectors once they are multiplied by their factor.
            Metric::Cosine => Bound::Absolute { off: sum + underflow * 1e12 },
            Metric::L2 => l2(extent, &terms.centre, scanned, query, (sum, norm, underflow)),
        }
    }

    /// Whether no vector whose scanned score is at most `scanned` comes before one of score `last`.
    pub(super) fn rules_out(&self, scanned: f32, last: f32) -> bool {
        let scanned = f64::from(scanned);
        match *self {
            Bound::Exact => true,
            Bound::Relative { .. } if scanned == 0.0 && last == 0.0 => true,
            Bound::Relative { scale, times } => last > (scale * (scanned + times * scanned.abs())) as f32,
            Bound::Absolute { off } => last > (scanned + off) as f32,
            Bound::Distance { constant, off } => ((constant - scanned - off) as f32) > last,
        }
    }
}

/// Whether a query's products with all vectors are sums that are never rounded.
pub(super) fn sums_exactly(query: &[f32], norm: f64, extent: &Extent) -> bool {
    is_exact(norm * extent.norm, grain(query.iter(), norm) * extent.grain)
}

/// With `p` the query less the centre, and `r` what `p` is rounded to:
/// `|q - x|^2 = |p|^2 + 2rc - (2rx - |x - c|^2) + 2(r - p)(x - c)`.
fn l2(
    extent: &Extent,
    centre: &[f32],
    scanned: &[f32],
    query: &[f32],
    (sum, norm, underflow): (f64, f64, f64),
) -> Bound {
    let (product, square) = (2.0 * norm * extent.norm, extent.square);
    let grain = grain(query.iter(), reference_terms::norm(query)).min(extent.grain);
    let distance = 2.0 * (norm * norm + square);
    if is_exact(product + square + distance, grain * grain) {
        return Bound::Exact;
    }
    let constant =
        reference_terms::square_distance(query, centre) + 2.0 * reference_terms::dot(scanned, centre);
    let off = sum * product + underflow * (4.0 + square.sqrt())
        // The rounding of the query, of |x - c|^2, and of the score.
        + UNIT * (2.1 * norm * square.sqrt() + square + 1.1 * (product + square))
        // What is done in f64.
        + 1e-15 * (scanned.len() as f64 + 8.0) * (distance + product + 2.0 * norm * extent.centre);
    Bound::Distance { constant, off }
}

/// Whether sums that stay below `greatest`, of multiples of `grain`, are never rounded.
fn is_exact(greatest: f64, grain: f64) -> bool {
    greatest == 0.0 || (grain >= UNDERFLOW && greatest <= EXACT * grain)
}
