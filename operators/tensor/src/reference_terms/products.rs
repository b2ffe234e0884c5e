//! Norms, products and distances by definition, in `f64`.

/// The norm of a vector.
pub(crate) fn norm(vector: &[f32]) -> f64 {
    dot(vector, vector).sqrt()
}

/// The product of two vectors.
#[inline(always)]
pub(crate) fn dot(left: &[f32], right: &[f32]) -> f64 {
    sum(left, right, |a, b| a * b)
}

/// The square of the distance between two vectors.
#[inline(always)]
pub(crate) fn square_distance(left: &[f32], right: &[f32]) -> f64 {
    sum(left, right, |a, b| (a - b) * (a - b))
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
