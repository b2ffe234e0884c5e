//! What is done to vectors in place, each on its own: activations, sums, norms, softmax.
//!
//! `rows` is vectors of `width` elements, one behind the other. These run behind the op that made
//! the vectors, while they are warm.

use super::functions::{exp, gelu, gelu_tanh, relu, silu};
use super::isa::kernel;
use super::lanes::Lanes;
use crate::op::Activation;

kernel! {
    /// Adds `other`, element by element.
    pub(super) fn add = add_rows(rows: &mut [f32], other: &[f32])
}
kernel! {
    /// Adds `bias` to each vector.
    pub(super) fn add_bias = add_bias_rows(rows: &mut [f32], bias: &[f32])
}
kernel! {
    /// Applies an activation to each element.
    pub(super) fn activate = activate_rows(rows: &mut [f32], activation: Activation)
}
kernel! {
    /// Layer norm of each vector.
    pub(super) fn layer_norm = layer_norm_rows(rows: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32)
}
kernel! {
    /// Softmax of each vector.
    pub(super) fn softmax = softmax_rows(rows: &mut [f32], width: usize)
}
kernel! {
    /// L2 normalisation of each vector.
    pub(super) fn l2_normalise = l2_normalise_rows(rows: &mut [f32], width: usize, epsilon: f32)
}
kernel! {
    /// `(x - mean) / deviation` of each vector.
    pub(super) fn standardise = standardise_rows(rows: &mut [f32], mean: &[f32], deviation: &[f32])
}

#[inline(always)]
fn add_rows<S: Lanes>(s: S, rows: &mut [f32], other: &[f32]) {
    for (part, other) in rows.chunks_mut(S::N).zip(other.chunks(S::N)) {
        let sum = s.add(s.load(part), s.load(other));
        s.store(part, sum);
    }
}

#[inline(always)]
fn add_bias_rows<S: Lanes>(s: S, rows: &mut [f32], bias: &[f32]) {
    for row in rows.chunks_exact_mut(bias.len()) {
        add_rows(s, row, bias);
    }
}

#[inline(always)]
pub(super) fn activate_rows<S: Lanes>(s: S, rows: &mut [f32], activation: Activation) {
    match activation {
        Activation::Relu => {
            for part in rows.chunks_mut(S::N) {
                let y = relu(s, s.load(part));
                s.store(part, y);
            }
        }
        Activation::Gelu => {
            for part in rows.chunks_mut(S::N) {
                let y = gelu(s, s.load(part));
                s.store(part, y);
            }
        }
        Activation::GeluTanh => {
            for part in rows.chunks_mut(S::N) {
                let y = gelu_tanh(s, s.load(part));
                s.store(part, y);
            }
        }
        Activation::Silu => {
            for part in rows.chunks_mut(S::N) {
                let y = silu(s, s.load(part));
                s.store(part, y);
            }
        }
    }
}

/// The sum of a vector, in four strands.
#[inline(always)]
fn sum<S: Lanes>(s: S, row: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); 4];
    let mut fours = row.chunks_exact(4 * S::N);
    for four in &mut fours {
        for (strand, part) in sums.iter_mut().zip(four.chunks_exact(S::N)) {
            *strand = s.add(*strand, s.load(part));
        }
    }
    for part in fours.remainder().chunks(S::N) {
        sums[0] = s.add(sums[0], s.load(part));
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// The sum of squares of the distances to `centre`, in four strands.
#[inline(always)]
fn sum_of_squares<S: Lanes>(s: S, row: &[f32], centre: f32) -> f32 {
    let at = s.splat(centre);
    let mut sums = [s.splat(0.0); 4];
    let mut fours = row.chunks_exact(4 * S::N);
    for four in &mut fours {
        for (strand, part) in sums.iter_mut().zip(four.chunks_exact(S::N)) {
            let distance = s.sub(s.load(part), at);
            *strand = s.mul_add(distance, distance, *strand);
        }
    }
    let mut parts = fours.remainder().chunks_exact(S::N);
    for part in &mut parts {
        let distance = s.sub(s.load(part), at);
        sums[0] = s.mul_add(distance, distance, sums[0]);
    }
    let rest: f32 = parts.remainder().iter().map(|x| (x - centre) * (x - centre)).sum();
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]))) + rest
}

/// The greatest of a vector; what is NaN may or may not count.
#[inline(always)]
fn greatest<S: Lanes>(s: S, row: &[f32]) -> f32 {
    let mut greatest = s.splat(f32::NEG_INFINITY);
    let mut parts = row.chunks_exact(S::N);
    for part in &mut parts {
        greatest = s.max(s.load(part), greatest);
    }
    parts.remainder().iter().fold(s.greatest(greatest), |a, b| a.max(*b))
}

#[inline(always)]
fn layer_norm_rows<S: Lanes>(s: S, rows: &mut [f32], gamma: &[f32], beta: &[f32], epsilon: f32) {
    let width = gamma.len();
    for row in rows.chunks_exact_mut(width) {
        let mean = sum(s, row) / width as f32;
        let variance = sum_of_squares(s, row, mean) / width as f32;
        let inverse = 1.0 / (variance + epsilon).sqrt();
        let (mean, inverse) = (s.splat(mean), s.splat(inverse));
        let weights = gamma.chunks(S::N).zip(beta.chunks(S::N));
        for (part, (gamma, beta)) in row.chunks_mut(S::N).zip(weights) {
            let normal = s.mul(s.sub(s.load(part), mean), inverse);
            let y = s.mul_add(normal, s.load(gamma), s.load(beta));
            s.store(part, y);
        }
    }
}

/// Replaces each element by `e^(scale * (x - greatest))`, and gives their sum.
#[inline(always)]
pub(super) fn exponentials<S: Lanes>(s: S, row: &mut [f32], greatest: f32, scale: f32) -> f32 {
    let (at, scale) = (s.splat(greatest), s.splat(scale));
    let mut sum = s.splat(0.0);
    let mut parts = row.chunks_exact_mut(S::N);
    for part in &mut parts {
        let y = exp(s, s.mul(s.sub(s.load(part), at), scale));
        sum = s.add(sum, y);
        s.store(part, y);
    }
    let rest = parts.into_remainder();
    let y = exp(s, s.mul(s.sub(s.load(rest), at), scale));
    s.store(rest, y);
    s.sum(sum) + rest.iter().sum::<f32>()
}

/// Multiplies each element.
#[inline(always)]
pub(super) fn scale_row<S: Lanes>(s: S, row: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for part in row.chunks_mut(S::N) {
        let y = s.mul(s.load(part), factor);
        s.store(part, y);
    }
}

/// The greatest of a vector, for a softmax: NaN shows in the exponentials anyway.
#[inline(always)]
pub(super) fn softmax_peak<S: Lanes>(s: S, row: &[f32]) -> f32 {
    greatest(s, row)
}

#[inline(always)]
fn softmax_rows<S: Lanes>(s: S, rows: &mut [f32], width: usize) {
    for row in rows.chunks_exact_mut(width) {
        let peak = softmax_peak(s, row);
        let sum = exponentials(s, row, peak, 1.0);
        scale_row(s, row, 1.0 / sum);
    }
}

#[inline(always)]
fn l2_normalise_rows<S: Lanes>(s: S, rows: &mut [f32], width: usize, epsilon: f32) {
    for row in rows.chunks_exact_mut(width) {
        let norm = norm(s, row);
        divide_row(s, row, divisor(norm, epsilon));
    }
}

/// The norm of a vector, also where squares overflow or vanish in `f32`.
#[inline(always)]
pub(super) fn norm<S: Lanes>(s: S, row: &[f32]) -> f32 {
    let squares = sum_of_squares(s, row, 0.0);
    match (1e-30..1e36).contains(&squares) {
        true => squares.sqrt(),
        false => row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt() as f32,
    }
}

/// What a vector of this norm is divided by; NaN of NaN.
#[inline(always)]
pub(super) fn divisor(norm: f32, epsilon: f32) -> f32 {
    if norm < epsilon { epsilon } else { norm }
}

#[inline(always)]
fn divide_row<S: Lanes>(s: S, row: &mut [f32], divisor: f32) {
    let inverse = 1.0 / divisor;
    // The inverse of a great divisor is no normal number, and that of a tiny one is infinite.
    if (1e-37..1e37).contains(&divisor) {
        return scale_row(s, row, inverse);
    }
    let divisor = s.splat(divisor);
    for part in row.chunks_mut(S::N) {
        let y = s.div(s.load(part), divisor);
        s.store(part, y);
    }
}

#[inline(always)]
fn standardise_rows<S: Lanes>(s: S, rows: &mut [f32], mean: &[f32], deviation: &[f32]) {
    for row in rows.chunks_exact_mut(mean.len()) {
        let weights = mean.chunks(S::N).zip(deviation.chunks(S::N));
        for (part, (mean, deviation)) in row.chunks_mut(S::N).zip(weights) {
            let y = s.div(s.sub(s.load(part), s.load(mean)), s.load(deviation));
            s.store(part, y);
        }
    }
}
