//! Vectors to bytes with a scale each, and back.

use super::isa::kernel;
use super::lanes::Lanes;
use super::rows::{divisor, norm};

kernel! {
    /// Quantises vectors of `width`; with an epsilon they are L2-normalised on the way, in the same
    /// passes: that changes a vector's scale and none of its bytes.
    pub(super) fn quantise = quantise_rows(
        rows: &[f32], width: usize, normalise: Option<f32>, bytes: &mut [i8], scales: &mut [f32]
    )
}
kernel! {
    /// Byte times scale.
    pub(super) fn dequantise = dequantise_rows(bytes: &[i8], scales: &[f32], width: usize, rows: &mut [f32])
}

#[inline(always)]
fn quantise_rows<S: Lanes>(
    s: S,
    rows: &[f32],
    width: usize,
    normalise: Option<f32>,
    bytes: &mut [i8],
    scales: &mut [f32],
) {
    let made = bytes.chunks_exact_mut(width).zip(scales);
    for (row, (bytes, scale)) in rows.chunks_exact(width).zip(made) {
        let greatest = greatest_magnitude(s, row);
        let own_scale = greatest / 127.0;
        *scale = match normalise {
            None => own_scale,
            Some(epsilon) => greatest / divisor(norm(s, row), epsilon) / 127.0,
        };
        // Not so of NaN; a scale that vanishes has no bytes to go with it.
        if greatest < f32::INFINITY && own_scale > 0.0 && *scale > 0.0 {
            to_bytes(s, row, own_scale, bytes);
        } else {
            bytes.fill(0);
            if greatest.is_nan() || greatest == f32::INFINITY {
                *scale = f32::NAN;
            }
        }
    }
}

/// `max |x|`, NaN where one is.
#[inline(always)]
fn greatest_magnitude<S: Lanes>(s: S, row: &[f32]) -> f32 {
    let mut greatest = [s.splat(0.0); 4];
    let mut fours = row.chunks_exact(4 * S::N);
    for four in &mut fours {
        for (strand, part) in greatest.iter_mut().zip(four.chunks_exact(S::N)) {
            *strand = s.max_or_nan(*strand, s.abs(s.load(part)));
        }
    }
    for part in fours.remainder().chunks(S::N) {
        greatest[0] = s.max_or_nan(greatest[0], s.abs(s.load(part)));
    }
    let pairs = [s.max_or_nan(greatest[0], greatest[1]), s.max_or_nan(greatest[2], greatest[3])];
    let all = s.max_or_nan(pairs[0], pairs[1]);
    // A comparison with itself fails where a lane is NaN.
    match s.at_least(all, all) == (u32::MAX >> (32 - S::N)) {
        true => s.greatest(all),
        false => f32::NAN,
    }
}

#[inline(always)]
fn to_bytes<S: Lanes>(s: S, row: &[f32], scale: f32, bytes: &mut [i8]) {
    let scale = s.splat(scale);
    let (least, greatest) = (s.splat(-127.0), s.splat(127.0));
    for (part, bytes) in row.chunks(S::N).zip(bytes.chunks_mut(S::N)) {
        // A scale that is no normal number is not exact, so the quotient is held to its range.
        let quotient = s.max(s.min(s.div(s.load(part), scale), greatest), least);
        // SAFETY: the part has as many bytes as are written.
        unsafe { s.store_bytes_to(bytes.as_mut_ptr(), quotient, bytes.len()) };
    }
}

#[inline(always)]
fn dequantise_rows<S: Lanes>(s: S, bytes: &[i8], scales: &[f32], width: usize, rows: &mut [f32]) {
    let made = rows.chunks_exact_mut(width);
    for ((bytes, scale), row) in bytes.chunks_exact(width).zip(scales).zip(made) {
        let scale = s.splat(*scale);
        for (bytes, part) in bytes.chunks(S::N).zip(row.chunks_mut(S::N)) {
            // SAFETY: the part has as many bytes as are read.
            let value = unsafe { s.load_bytes_from(bytes.as_ptr(), bytes.len()) };
            s.store(part, s.mul(value, scale));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    fn run(isa: Isa, row: &[f32], normalise: Option<f32>) -> (Vec<i8>, f32) {
        let (mut bytes, mut scales) = (vec![55; row.len()], [55.0]);
        quantise(isa, row, row.len(), normalise, &mut bytes, &mut scales);
        (bytes, scales[0])
    }

    #[test]
    fn bytes_are_rounded_quotients_ties_to_even() {
        for isa in Isa::all() {
            let row: Vec<f32> = (0..37).map(|i| if i == 5 { -127.0 } else { i as f32 * 0.5 }).collect();
            let (bytes, scale) = run(isa, &row, None);
            assert_eq!(scale, 1.0);
            let wanted: Vec<i8> = row.iter().map(|x| x.round_ties_even() as i8).collect();
            assert_eq!(bytes, wanted, "{isa}");
        }
    }

    #[test]
    fn zeros_have_scale_zero_and_what_is_no_number_scale_nan() {
        for isa in Isa::all() {
            for normalise in [None, Some(1e-12)] {
                assert_eq!(run(isa, &[0.0; 19], normalise), (vec![0; 19], 0.0));
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    for place in [0, 15, 16, 18] {
                        let mut row = [1.0; 19];
                        row[place] = bad;
                        let (bytes, scale) = run(isa, &row, normalise);
                        assert!(scale.is_nan(), "{isa}: {bad} at {place}");
                        assert_eq!(bytes, [0; 19]);
                    }
                }
            }
        }
    }

    #[test]
    fn tiny_and_huge_vectors_stay_within_their_bytes() {
        for isa in Isa::all() {
            for size in [1e-44, 1e-38, 1e-20, 1e20, 3e38] {
                let (bytes, scale) = run(isa, &[size, -size, size / 2.0], None);
                if scale > 0.0 {
                    assert_eq!((bytes[0], bytes[1]), (127, -127), "{isa}: {size}");
                }
            }
        }
    }
}
