//! The tokens of a row to one vector.

use super::isa::kernel;
use super::lanes::Lanes;
use crate::op::Pooling;

kernel! {
    /// Pools each row's tokens, vectors of `width`; `offsets` are the rows' in tokens.
    pub(super) fn pool = pool_rows(
        pooling: Pooling, tokens: &[f32], width: usize, offsets: &[i32], out: &mut [f32]
    )
}

#[inline(always)]
fn pool_rows<S: Lanes>(
    s: S,
    pooling: Pooling,
    tokens: &[f32],
    width: usize,
    offsets: &[i32],
    out: &mut [f32],
) {
    let start = offsets.first().copied().unwrap_or_default();
    for (row, out) in offsets.windows(2).zip(out.chunks_exact_mut(width)) {
        let tokens = &tokens[(row[0] - start) as usize * width..(row[1] - start) as usize * width];
        if tokens.is_empty() {
            out.fill(0.0);
            continue;
        }
        match pooling {
            Pooling::Cls => out.copy_from_slice(&tokens[..width]),
            Pooling::Mean => mean(s, tokens, width, out),
            Pooling::Max => {
                let mut vectors = tokens.chunks_exact(width);
                out.copy_from_slice(vectors.next().unwrap_or_default());
                for vector in vectors {
                    for (part, other) in out.chunks_mut(S::N).zip(vector.chunks(S::N)) {
                        let greatest = s.max_or_nan(s.load(part), s.load(other));
                        s.store(part, greatest);
                    }
                }
            }
        }
    }
}

/// In eight strands, so that a long row's sum is as exact as a short one's.
#[inline(always)]
fn mean<S: Lanes>(s: S, tokens: &[f32], width: usize, out: &mut [f32]) {
    let inverse = s.splat(1.0 / (tokens.len() / width) as f32);
    for (part, first) in out.chunks_mut(S::N).zip((0..width).step_by(S::N)) {
        let columns = first..first + part.len();
        let mut sums = [s.splat(0.0); 8];
        for eight in tokens.chunks(8 * width) {
            for (sum, vector) in sums.iter_mut().zip(eight.chunks_exact(width)) {
                *sum = s.add(*sum, s.load(&vector[columns.clone()]));
            }
        }
        let [a, b, c, d, e, f, g, h] = sums;
        let (low, high) = (s.add(s.add(a, b), s.add(c, d)), s.add(s.add(e, f), s.add(g, h)));
        s.store(part, s.mul(s.add(low, high), inverse));
    }
}
