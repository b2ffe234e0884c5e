//! Stored weights and vectors as the device wants them, any part of them at a time. Pure.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::Element;
use crate::weights::StoredTensor;

/// Elements that are converted at once; they stay in the first-level cache.
const BLOCK: usize = 1_024;

/// Floats that can be read from any element on.
pub(super) trait Floats {
    /// How many.
    fn len(&self) -> usize;

    /// Those from `first` on, as many as `out` has.
    fn read(&self, first: usize, out: &mut [f32]);
}

impl Floats for [f32] {
    fn len(&self) -> usize {
        <[f32]>::len(self)
    }

    fn read(&self, first: usize, out: &mut [f32]) {
        out.copy_from_slice(&self[first..first + out.len()]);
    }
}

/// Vectors with the same one taken from each.
pub(super) struct Centred<'a> {
    pub(super) vectors: &'a [f32],
    pub(super) centre: &'a [f32],
}

impl Floats for Centred<'_> {
    fn len(&self) -> usize {
        self.vectors.len()
    }

    fn read(&self, first: usize, out: &mut [f32]) {
        self.vectors.read(first, out);
        let width = self.centre.len().max(1);
        let centre = self.centre.iter().cycle().skip(first % width);
        out.iter_mut().zip(centre).for_each(|(element, centre)| *element -= centre);
    }
}

impl Floats for StoredTensor {
    fn len(&self) -> usize {
        self.data.len() / self.element.bytes()
    }

    /// A mapped file's tensors may begin anywhere, so bytes are read one by one.
    fn read(&self, first: usize, out: &mut [f32]) {
        let each = self.element.bytes();
        let bytes = &self.data[first * each..(first + out.len()) * each];
        match self.element {
            Element::F16 => {
                for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *value = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
                }
            }
            _ => {
                for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
            }
        }
    }
}

/// Writes the elements of all parts, one part behind the other, from number `first` on into `out`,
/// as many as it has room for. To `f16`: nearest even.
pub(super) fn convert<F: Floats + ?Sized>(parts: &[&F], element: Element, mut first: usize, out: &mut [u8]) {
    let each = element.bytes();
    let mut written = 0;
    let mut block = [0_f32; BLOCK];
    for part in parts {
        if first >= part.len() {
            first -= part.len();
            continue;
        }
        while first < part.len() && written < out.len() {
            let count = BLOCK.min(part.len() - first).min((out.len() - written) / each);
            if count == 0 {
                return;
            }
            part.read(first, &mut block[..count]);
            write(&block[..count], element, &mut out[written..written + count * each]);
            first += count;
            written += count * each;
        }
        first = 0;
    }
}

fn write(values: &[f32], element: Element, out: &mut [u8]) {
    match element {
        Element::F16 => {
            let mut halves = [f16::ZERO; BLOCK];
            let halves = &mut halves[..values.len()];
            halves.convert_from_f32_slice(values);
            for (bytes, half) in out.chunks_exact_mut(2).zip(halves) {
                bytes.copy_from_slice(&half.to_le_bytes());
            }
        }
        _ => {
            for (bytes, value) in out.chunks_exact_mut(4).zip(values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::buffer::Buffer;

    fn stored(element: Element, values: &[f32], shift: usize) -> StoredTensor {
        let mut bytes = vec![0_u8; shift];
        for value in values {
            match element {
                Element::F16 => bytes.extend(f16::from_f32(*value).to_le_bytes()),
                _ => bytes.extend(value.to_le_bytes()),
            }
        }
        StoredTensor { element, dims: vec![values.len()], data: Buffer::from_vec(bytes).slice(shift) }
    }

    fn halves(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks(2).map(|half| f16::from_le_bytes([half[0], half[1]]).to_f32()).collect()
    }

    #[test]
    fn parts_in_either_element_are_joined_and_rounded_from_any_element_on() {
        let values: Vec<f32> = (0..5_000).map(|n| n as f32 * 0.123 - 300.0).collect();
        let (left, right) =
            (stored(Element::F32, &values[..1_500], 1), stored(Element::F32, &values[1_500..], 3));
        let want: Vec<f32> = values.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
        for (first, count) in [(0, 5_000), (1_499, 2), (1_500, 1), (3_000, 1_025), (4_999, 1), (10, 0)] {
            let mut out = vec![0; count * 2];
            convert(&[&left, &right], Element::F16, first, &mut out);
            assert_eq!(halves(&out), want[first..first + count], "{first} {count}");
        }
    }

    #[test]
    fn a_centre_is_taken_from_vectors_wherever_reading_begins() {
        let vectors: Vec<f32> = (0..3_000).map(|n| 500.0 + n as f32 / 64.0).collect();
        let centre = [500.0, 501.0, 502.0];
        let want = crate::cuda::centre::centred(&vectors, &centre);
        for (first, count) in [(0, 3_000), (1, 2_999), (1_025, 1_024), (2_999, 1)] {
            let mut out = vec![0; count * 4];
            convert(&[&Centred { vectors: &vectors, centre: &centre }], Element::F32, first, &mut out);
            let bytes: Vec<u8> =
                want[first..first + count].iter().flat_map(|value| value.to_le_bytes()).collect();
            assert_eq!(out, bytes, "{first} {count}");
        }
    }

    #[test]
    fn f32_stays_bit_for_bit_and_f16_becomes_itself() {
        let values = [1.0, -0.0, f32::MIN_POSITIVE / 4.0, f32::INFINITY, 3.402e38];
        let mut out = vec![0; 20];
        convert(&[&stored(Element::F32, &values, 2)], Element::F32, 0, &mut out);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(out, bytes);
        let mut out = vec![0; 4];
        convert(&[&stored(Element::F16, &[0.1, 65_504.0], 1)], Element::F16, 0, &mut out);
        assert_eq!(halves(&out), [f16::from_f32(0.1).to_f32(), 65_504.0]);
    }

    #[test]
    fn rounding_to_f16_is_to_nearest_even_and_overflows_to_infinity() {
        // Halfway between 1 and the next f16, and between that and the one after it.
        let ulp = 2_f32.powi(-10);
        let values = [1.0 + ulp / 2.0, 1.0 + 1.5 * ulp, 65_520.0, -1e30];
        let mut out = vec![0; 8];
        convert(&[&values[..]], Element::F16, 0, &mut out);
        assert_eq!(halves(&out), [1.0, 1.0 + 2.0 * ulp, f32::INFINITY, f32::NEG_INFINITY]);
    }
}
