//! What is taken from vectors and queries before they are compared by distance.
//!
//! A search gets `|q - x|^2` from a product: `|q|^2 - 2 q x + |x|^2`. Where vectors lie close together
//! and far from the origin, what they differ in is lost in the rounding of its terms. The distance
//! does not change when one vector, the centre, is taken from both, and then the terms are as small as
//! the distances are.
//!
//! A centre has few significant bits, so that numbers of few bits (and with them ties) stay exact.

use std::borrow::Cow;

use crate::ReferenceMatrix;

/// Vectors whose mean is taken, at most: any centre is right, a near one is enough.
const SAMPLE_MAX: usize = 4_096;
/// Bits of a centre's elements behind the first.
const BITS: u32 = 7;

/// The centre of a matrix: about the mean of its vectors where that brings every one of them nearer to
/// the origin, else zeros, for a vector that would be moved away would lose bits.
pub fn centre(matrix: &ReferenceMatrix) -> Vec<f32> {
    let (width, zeros) = (matrix.width(), || vec![0.0; matrix.width()]);
    let mean = mean(matrix);
    let half = dot(&mean, &mean) / 2.0;
    // |x - c| <= |x|, written out. What is not finite stays so wherever the centre is.
    let comes_nearer = |vector: &[f32]| {
        let along = dot(vector, &mean);
        along >= half || !along.is_finite()
    };
    let is_centre = half > 0.0 && half.is_finite() && matrix.vectors().chunks_exact(width).all(comes_nearer);
    if is_centre { mean } else { zeros() }
}

/// The vectors with the centre taken from each.
pub fn centred<'a>(vectors: &'a [f32], centre: &[f32]) -> Cow<'a, [f32]> {
    if centre.iter().all(|element| *element == 0.0) {
        return Cow::Borrowed(vectors);
    }
    Cow::Owned(vectors.iter().zip(centre.iter().cycle()).map(|(element, centre)| element - centre).collect())
}

fn mean(matrix: &ReferenceMatrix) -> Vec<f32> {
    let (mut sums, mut count) = (vec![0_f64; matrix.width()], 0_f64);
    let step = matrix.rows().div_ceil(SAMPLE_MAX).max(1);
    for vector in matrix.vectors().chunks_exact(matrix.width()).step_by(step) {
        if vector.iter().all(|element| element.is_finite()) {
            sums.iter_mut().zip(vector).for_each(|(sum, element)| *sum += f64::from(*element));
            count += 1.0;
        }
    }
    sums.into_iter().map(|sum| coarse((sum / f64::max(count, 1.0)) as f32)).collect()
}

/// The number with its last bits cleared.
fn coarse(number: f32) -> f32 {
    let last = (1_u32 << (f32::MANTISSA_DIGITS - 1 - BITS)) - 1;
    f32::from_bits(number.to_bits() & !last)
}

/// In `f32`, by several sums side by side: as fast as memory is read.
fn dot(left: &[f32], right: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0_f32; LANES];
    let (left, right) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    for (left, right) in left.zip(right) {
        for (sum, (a, b)) in sums.iter_mut().zip(left.iter().zip(right)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use arrow::buffer::ScalarBuffer;

    use super::*;

    fn matrix(width: usize, vectors: &[f32]) -> ReferenceMatrix {
        let ids: Vec<i64> = (0..(vectors.len() / width) as i64).collect();
        let vectors = ScalarBuffer::from(vectors.to_vec());
        ReferenceMatrix::new("reference", width, vectors, ScalarBuffer::from(ids)).unwrap()
    }

    #[test]
    fn a_cluster_far_away_is_brought_to_the_origin() {
        let far: Vec<f32> = (0..600)
            .map(|index| if index % 3 == 0 { -1_000.3 } else { 700.1 } + index as f32 / 6e3)
            .collect();
        let centre = centre(&matrix(3, &far));
        assert_eq!(centre, [-1_000.0, 700.0, 700.0]);
        assert!(centred(&far, &centre).iter().all(|element| element.abs() < 0.5));
    }

    #[test]
    fn what_lies_around_the_origin_or_has_one_vector_elsewhere_stays() {
        let around = matrix(2, &[3.0, 4.0, -3.0, -4.0, 0.5, 0.0]);
        assert_eq!(centre(&around), [0.0, 0.0]);
        let mut one_elsewhere = vec![1.0; 200];
        one_elsewhere[7] = 1e30;
        assert_eq!(centre(&matrix(2, &one_elsewhere)), [0.0, 0.0]);
        assert_eq!(centre(&matrix(4, &[])), [0.0; 4]);
        assert!(matches!(centred(&one_elsewhere, &[0.0, 0.0]), Cow::Borrowed(_)));
    }

    #[test]
    fn vectors_that_are_not_finite_do_not_move_the_centre() {
        let spoiled = matrix(2, &[64.0, 64.0, f32::NAN, 64.0, f32::INFINITY, 64.0, 64.5, 64.0]);
        assert_eq!(centre(&spoiled), [64.0, 64.0]);
    }

    #[test]
    fn small_integers_stay_exact() {
        let integers: Vec<f32> = (0..100).map(|index| 1_000.0 + (index % 7) as f32).collect();
        let centre = centre(&matrix(5, &integers));
        assert!(centre.iter().all(|element| element.fract() == 0.0 && *element > 900.0), "{centre:?}");
    }
}
