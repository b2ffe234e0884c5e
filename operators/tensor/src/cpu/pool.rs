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
        let mut vectors = tokens.chunks_exact(width);
        let Some(first) = vectors.next() else {
            out.fill(0.0);
            continue;
        };
        out.copy_from_slice(first);
        match pooling {
            Pooling::Cls => {}
            Pooling::Mean => {
                for vector in vectors {
                    for (part, other) in out.chunks_mut(S::N).zip(vector.chunks(S::N)) {
                        let sum = s.add(s.load(part), s.load(other));
                        s.store(part, sum);
                    }
                }
                super::rows::scale_row(s, out, 1.0 / (row[1] - row[0]) as f32);
            }
            Pooling::Max => {
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
