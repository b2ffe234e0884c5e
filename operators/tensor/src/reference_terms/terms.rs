//! What a scan needs of each vector of a reference, for one metric.

use super::Vectors;
use super::copies::Copies;
use super::products::{norm as norm_of, square_distance};
use crate::op::Metric;

/// Norms between which `f32` products and squares of any two neither overflow nor lose their bits.
const LEAST_NORM: f64 = 1e-12;
const GREATEST_NORM: f64 = 1e12;

/// A score is `product * factor + addend`.
///
/// What is scanned for L2 is not `-|q - x|^2`, nor `2qx - |x|^2`, which would cancel where vectors
/// lie close together and far from the origin, but `2(q - c)x - |x - c|^2` with `c` in the vectors'
/// middle: for one query that differs from the first by a constant, and for vectors that lie close
/// together `q - c` and `x - c` are small.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    pub(crate) factors: Vec<f32>,
    pub(crate) addends: Vec<f32>,
    /// Vectors that a scan cannot score, or that would spoil its error bound for all others: their
    /// terms are NaN, so that they never get in.
    pub(crate) irregular: Vec<u32>,
    /// What is taken off a query; empty where nothing is.
    pub(crate) centre: Vec<f32>,
    pub(crate) extent: Extent,
}

/// How far the vectors that are scanned reach.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extent {
    /// The greatest norm.
    pub(crate) norm: f64,
    /// The greatest square of a distance from the centre.
    pub(crate) square: f64,
    /// Norm of the centre.
    pub(crate) centre: f64,
    /// All their elements are multiples of this power of two, unless it is 0, which is nothing known.
    pub(crate) grain: f64,
}

impl Terms {
    /// Of vectors with these norms. Of copies of a vector only the first is scanned.
    pub(super) fn new(all: Vectors<'_>, norms: &[f64], copies: &Copies, metric: Metric) -> Terms {
        let vectors = || all.rows();
        let greatest = match metric {
            Metric::Cosine => GREATEST_NORM,
            Metric::Dot | Metric::L2 => usual(norms.iter().copied().filter(|norm| *norm < GREATEST_NORM)),
        };
        let is_usual = |norm: f64| norm <= greatest && is_regular(norm, metric);
        let usual_norms = norms.iter().copied().filter(|norm| is_usual(*norm));
        let mut extent = Extent { norm: usual_norms.fold(0.0, f64::max), ..Extent::default() };
        let usual_vectors = || vectors().zip(norms).filter(|(_, norm)| is_usual(**norm));
        extent.grain = grain(usual_vectors().flat_map(|(vector, _)| vector), extent.norm);
        let mut terms = Terms::default();
        let mut squares = Vec::new();
        let mut farthest = f64::INFINITY;
        if metric == Metric::L2 {
            terms.centre = centre(usual_vectors().map(|(vector, _)| vector), all.width, extent.grain);
            extent.centre = norm_of(&terms.centre);
            squares = vectors().map(|vector| square_distance(vector, &terms.centre)).collect();
            let near = squares.iter().zip(norms).filter(|(_, norm)| is_usual(**norm));
            let distance = usual(near.map(|(square, _)| square.sqrt()));
            farthest = distance * distance;
        }
        for (row, norm) in norms.iter().enumerate() {
            let square = squares.get(row).copied().unwrap_or_default();
            let (factor, addend) = match metric {
                _ if norm.is_nan() || copies.is_copy(row as u32) => (f32::NAN, f32::NAN),
                Metric::Cosine if *norm == 0.0 => (0.0, 0.0),
                _ if !is_usual(*norm) || square > farthest => {
                    terms.irregular.push(row as u32);
                    (f32::NAN, f32::NAN)
                }
                Metric::Dot => (1.0, 0.0),
                Metric::Cosine => ((1.0 / norm) as f32, 0.0),
                Metric::L2 => (2.0, -square as f32),
            };
            if !factor.is_nan() {
                extent.square = extent.square.max(square);
            }
            terms.factors.push(factor);
            terms.addends.push(addend);
        }
        terms.extent = extent;
        terms
    }

    pub(super) fn bytes(&self) -> usize {
        let elements = self.factors.len() + self.addends.len() + self.centre.len() + self.irregular.len();
        elements * size_of::<f32>()
    }
}

/// Whether a vector of this norm can be scored in `f32`.
pub(crate) fn is_regular(norm: f64, metric: Metric) -> bool {
    match metric {
        Metric::Cosine => (LEAST_NORM..GREATEST_NORM).contains(&norm),
        Metric::Dot | Metric::L2 => norm < GREATEST_NORM,
    }
}

/// A size that all but a thousandth of the vectors are far below. The few beyond it are scored by
/// definition for every query, so that rounding is bounded by what is usual.
fn usual(sizes: impl Iterator<Item = f64>) -> f64 {
    let mut sizes: Vec<f64> = sizes.collect();
    let Some(last) = sizes.len().checked_sub(1) else { return 0.0 };
    let (_, size, _) = sizes.select_nth_unstable_by(last - last / 1_000, f64::total_cmp);
    16.0 * *size
}

/// The vectors' mean, rounded to their grain.
fn centre<'a>(vectors: impl Iterator<Item = &'a [f32]>, width: usize, grain: f64) -> Vec<f32> {
    let (mut sums, mut count) = (vec![0.0; width], 0u32);
    for vector in vectors {
        sums.iter_mut().zip(vector).for_each(|(sum, x)| *sum += f64::from(*x));
        count += 1;
    }
    let mean = sums.into_iter().map(|sum| sum / f64::from(count.max(1)));
    let has_grain = grain > 0.0 && grain.is_finite();
    mean.map(|mean| if has_grain { ((mean / grain).round() * grain) as f32 } else { mean as f32 }).collect()
}

/// The greatest power of two of which all elements are multiples; 0 where it is so small beside
/// `greatest` that products with others of the kind would be rounded: of most vectors the first few
/// elements show that.
pub(crate) fn grain<'a>(elements: impl Iterator<Item = &'a f32>, greatest: f64) -> f64 {
    let mut grain = f64::INFINITY;
    for element in elements.filter(|element| **element != 0.0) {
        let bits = element.to_bits();
        let exponent = (bits >> 23 & 0xff).max(1) as i32 - 150;
        let fraction = bits & 0x7f_ffff;
        let is_normal = bits >> 23 & 0xff != 0;
        let zeros = (fraction | u32::from(is_normal) << 23).trailing_zeros() as i32;
        grain = grain.min(f64::from(exponent + zeros).exp2());
        if greatest >= WHOLE * grain {
            return 0.0;
        }
    }
    grain
}

/// Multiples of a grain up to so many times it are `f32`s.
pub(crate) const EXACT: f64 = 16_777_216.0;

/// Vectors may be so many times as long as the grain of their elements to be taken for whole numbers.
const WHOLE: f64 = 16_384.0;
