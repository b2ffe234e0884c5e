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
        let (mut greatest, squares) = greatest_and_squares(s, row);
        // Squares overflow long before elements do, and vanish too; and where they are finite no
        // element was NaN.
        let is_plain = SAFE_SQUARES.contains(&squares);
        if !is_plain {
            greatest = row.iter().fold(0.0, |a, x| if a > x.abs() || a.is_nan() { a } else { x.abs() });
        }
        let own_scale = greatest / 127.0;
        *scale = match normalise {
            None => own_scale,
            Some(epsilon) if is_plain => greatest / divisor(squares.sqrt(), epsilon) / 127.0,
            Some(epsilon) => greatest / divisor(norm(s, row), epsilon) / 127.0,
        };
        if is_plain {
            to_bytes(s, row, 1.0 / own_scale, bytes);
        } else {
            to_bytes_carefully(row, own_scale, bytes, scale);
        }
    }
}

/// Sums of squares of which root and reciprocal are as exact as they can be.
const SAFE_SQUARES: std::ops::Range<f32> = 1e-24..1e36;

/// How far ahead of what is read memory is asked for, in elements.
const AHEAD: usize = 1_024;

/// `max |x|` and the sum of squares; the first holds only where the second is finite.
#[inline(always)]
fn greatest_and_squares<S: Lanes>(s: S, row: &[f32]) -> (f32, f32) {
    let mut greatest = [s.splat(0.0); 2];
    let mut squares = [s.splat(0.0); 4];
    let mut fours = row.chunks_exact(4 * S::N);
    for four in &mut fours {
        for (strand, part) in four.chunks_exact(S::N).enumerate() {
            let x = s.load(part);
            // The processor looks ahead too, but not beyond a page.
            s.prefetch(part.as_ptr().wrapping_add(AHEAD));
            greatest[strand % 2] = s.max(s.abs(x), greatest[strand % 2]);
            squares[strand] = s.mul_add(x, x, squares[strand]);
        }
    }
    for part in fours.remainder().chunks(S::N) {
        let x = s.load(part);
        greatest[0] = s.max(s.abs(x), greatest[0]);
        squares[0] = s.mul_add(x, x, squares[0]);
    }
    let squares = s.add(s.add(squares[0], squares[1]), s.add(squares[2], squares[3]));
    (s.greatest(s.max(greatest[0], greatest[1])), s.sum(squares))
}

#[inline(always)]
fn to_bytes<S: Lanes>(s: S, row: &[f32], inverse: f32, bytes: &mut [i8]) {
    let inverse = s.splat(inverse);
    for (part, bytes) in row.chunks(S::N).zip(bytes.chunks_mut(S::N)) {
        let quotient = s.mul(s.load(part), inverse);
        // SAFETY: the part has as many bytes as are written.
        unsafe { s.store_bytes_to(bytes.as_mut_ptr(), quotient, bytes.len()) };
    }
}

/// For vectors of no, tiny, huge and unknown numbers.
fn to_bytes_carefully(row: &[f32], own_scale: f32, bytes: &mut [i8], scale: &mut f32) {
    bytes.fill(0);
    if !own_scale.is_finite() {
        *scale = f32::NAN;
    } else if own_scale > 0.0 && *scale > 0.0 {
        for (byte, x) in bytes.iter_mut().zip(row) {
            // A scale that is no normal number is not exact, so the quotient is held to its range.
            *byte = (x / own_scale).round_ties_even().clamp(-127.0, 127.0) as i8;
        }
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
