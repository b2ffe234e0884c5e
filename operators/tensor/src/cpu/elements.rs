//! Elements from one type to another, ids to vectors, numbers to buckets; and vectors put together
//! and taken apart.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::Element;

/// Widens.
pub(super) fn from_f16(from: &[f16], to: &mut [f32]) {
    from.convert_to_f32_slice(to);
}

/// Rounds to nearest even, overflow to infinity.
pub(super) fn to_f16(from: &[f32], to: &mut [f16]) {
    to.convert_from_f32_slice(from);
}

/// Rounds each element to the nearest that an `f16` can hold.
pub(super) fn round_to_f16(values: &mut [f32]) {
    let mut halves = [f16::ZERO; 256];
    for part in values.chunks_mut(halves.len()) {
        let halves = &mut halves[..part.len()];
        to_f16(part, halves);
        from_f16(halves, part);
    }
}

/// To the nearest integer, ties to even, saturating, NaN to 0.
pub(super) fn to_i8(from: &[f32], to: &mut [i8]) {
    for (from, to) in from.iter().zip(to) {
        *to = from.round_ties_even() as i8;
    }
}

/// To the nearest integer, ties to even, saturating, NaN to 0.
pub(super) fn to_i32(from: &[f32], to: &mut [i32]) {
    for (from, to) in from.iter().zip(to) {
        *to = from.round_ties_even() as i32;
    }
}

/// Saturates.
pub(super) fn i32_to_i8(from: &[i32], to: &mut [i8]) {
    for (from, to) in from.iter().zip(to) {
        *to = (*from).clamp(i32::from(i8::MIN), i32::from(i8::MAX)) as i8;
    }
}

/// Widens.
pub(super) fn i8_to_i32(from: &[i8], to: &mut [i32]) {
    for (from, to) in from.iter().zip(to) {
        *to = i32::from(*from);
    }
}

/// To the nearest `f32`.
pub(super) fn from_i32(from: &[i32], to: &mut [f32]) {
    for (from, to) in from.iter().zip(to) {
        *to = *from as f32;
    }
}

/// To the nearest `f16`, in one rounding, as an `f32`.
pub(super) fn from_i32_as_f16(from: &[i32], to: &mut [f32]) {
    for (from, to) in from.iter().zip(to) {
        *to = f16::from_f64(f64::from(*from)).to_f32();
    }
}

/// Widens.
pub(super) fn from_i8(from: &[i8], to: &mut [f32]) {
    for (from, to) in from.iter().zip(to) {
        *to = f32::from(*from);
    }
}

/// The rows of `table` that the ids name. Ids are known to be in range; one that is not makes NaN.
pub(super) fn gather(table: &[f32], width: usize, ids: &[i32], out: &mut [f32]) {
    for (id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
        copy_row(table, width, *id as usize, out);
    }
}

/// Row `t` of `table` for the `t`-th token of each row.
pub(super) fn positions(table: &[f32], width: usize, offsets: &[i32], out: &mut [f32]) {
    let mut out = out.chunks_exact_mut(width);
    for row in offsets.windows(2) {
        for place in 0..(row[1] - row[0]) as usize {
            if let Some(out) = out.next() {
                copy_row(table, width, place, out);
            }
        }
    }
}

fn copy_row(table: &[f32], width: usize, row: usize, out: &mut [f32]) {
    match row.checked_mul(width).and_then(|start| table.get(start..start + width)) {
        Some(found) => out.copy_from_slice(found),
        None => out.fill(f32::NAN),
    }
}

/// How many boundaries are less than the element; all of them where it is NaN.
pub(super) fn bucketise(boundaries: &[f32], from: &[f32], to: &mut [i32]) {
    for (element, bucket) in from.iter().zip(to) {
        *bucket = match element.is_nan() {
            true => boundaries.len() as i32,
            false => boundaries.partition_point(|boundary| boundary < element) as i32,
        };
    }
}

/// `bytes` of each vector of `from_stride`, beginning at `from_start`, to where `to_start` and
/// `to_stride` say. A vector's other bytes are left as they are.
pub(super) fn copy_columns(
    (from, from_stride, from_start): (&[u8], usize, usize),
    (to, to_stride, to_start): (&mut [u8], usize, usize),
    bytes: usize,
) {
    for (from, to) in from.chunks_exact(from_stride).zip(to.chunks_exact_mut(to_stride)) {
        to[to_start..to_start + bytes].copy_from_slice(&from[from_start..from_start + bytes]);
    }
}

/// Bytes of an element where it lies between ops: floats of either kind are `f32` there.
pub(super) const fn held_bytes(element: Element) -> usize {
    match element {
        Element::F16 => 4,
        other => other.bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_round_to_even_saturate_and_make_zero_of_nan() {
        let from = [0.5, 1.5, -2.5, 126.5, 127.5, -1e9, f32::INFINITY, f32::NAN, -0.4];
        let mut bytes = [1; 9];
        to_i8(&from, &mut bytes);
        assert_eq!(bytes, [0, 2, -2, 126, 127, -128, 127, 0, 0]);
        let mut words = [1; 9];
        to_i32(&from, &mut words);
        assert_eq!(words, [0, 2, -2, 126, 128, -1_000_000_000, i32::MAX, 0, 0]);
    }

    #[test]
    fn an_integer_becomes_f16_in_one_rounding() {
        // 2^24 + 2^13 + 1 would be a tie after a rounding to f32; as an f16 it is infinite anyway,
        // so the case is made within range: 2049 lies between 2048 and 2050, a tie to even.
        let mut out = [0.0; 4];
        from_i32_as_f16(&[2049, 2051, 65_519, 65_520], &mut out);
        assert_eq!(out, [2048.0, 2052.0, 65_504.0, f32::INFINITY]);
    }

    #[test]
    fn buckets_count_the_boundaries_below() {
        let mut buckets = [9; 6];
        bucketise(&[0.0, 1.0], &[-1.0, 0.0, 0.5, 1.0, 2.0, f32::NAN], &mut buckets);
        assert_eq!(buckets, [0, 0, 1, 1, 2, 2]);
    }
}
