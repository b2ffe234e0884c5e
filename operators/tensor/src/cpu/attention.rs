//! Scaled dot-product attention over the packed tokens of rows.
//!
//! Each row and head is done on its own, keys in blocks, with the softmax kept up to date from
//! block to block (Milakov, Gimelshein 2018; Dao et al. 2022): scratch does not grow with a row's
//! length, and the scores of a short row never leave the first cache.

use super::aligned::Aligned;
use super::isa::kernel;
use super::lanes::Lanes;
use super::rows::{exponentials, scale_row, softmax_peak};
use super::tile::{Coming, Operands, TILE_VECTORS, Write, tile};

/// Keys of a block, and queries that are taken through all of them together.
const KEYS: usize = 96;
const QUERIES: usize = 64;

/// What the kernel works in.
#[derive(Default)]
pub(super) struct AttentionScratch {
    /// A block's keys, `[d][KEYS]`.
    keys: Aligned,
    /// A block's values, `[KEYS][d padded to vectors]`.
    values: Aligned,
    /// `[QUERIES][KEYS]`.
    scores: Aligned,
    /// What a block adds, `[QUERIES][d padded]`.
    added: Aligned,
    /// Per query the greatest score so far, and the sum of exponentials.
    peaks: Vec<f32>,
    sums: Vec<f32>,
    /// Whether every value of the block is finite: a weight of 0 hides nothing else.
    is_finite: bool,
}

impl AttentionScratch {
    fn reserve(&mut self, padded: usize, d: usize) {
        self.keys.reserve(d * KEYS);
        self.values.reserve(KEYS * padded);
        self.scores.reserve(QUERIES * KEYS);
        self.added.reserve(QUERIES * padded);
        self.peaks.resize(QUERIES, 0.0);
        self.sums.resize(QUERIES, 0.0);
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes() + self.values.bytes() + self.scores.bytes() + self.added.bytes()
    }

    /// Bytes that it will take for heads of `d` elements, at most.
    pub(super) fn bytes_for(d: usize) -> usize {
        let padded = d.next_multiple_of(16);
        (d * KEYS + KEYS * padded + QUERIES * KEYS + QUERIES * padded) * size_of::<f32>()
    }
}

/// Query, key and value, each of `width` elements per token, and the shape of the attention.
#[derive(Clone, Copy)]
pub(super) struct Attend<'a> {
    pub(super) query: &'a [f32],
    pub(super) key: &'a [f32],
    pub(super) value: &'a [f32],
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) causal: bool,
}

kernel! {
    /// Attention of each row's tokens over that row's; `offsets` are the rows' in tokens, from the
    /// first row's on.
    pub(super) fn attention = attention_rows(
        attend: Attend<'_>, offsets: &[i32], out: &mut [f32], scratch: &mut AttentionScratch
    )
}

#[inline(always)]
fn attention_rows<S: Lanes>(
    s: S,
    attend: Attend<'_>,
    offsets: &[i32],
    out: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let Attend { width, heads, .. } = attend;
    let d = width / heads;
    scratch.reserve(d.next_multiple_of(S::N), d);
    let start = offsets.first().copied().unwrap_or_default();
    for row in offsets.windows(2) {
        let tokens = (row[0] - start) as usize..(row[1] - start) as usize;
        let elements = tokens.start * width..tokens.end * width;
        let row = Attend {
            query: &attend.query[elements.clone()],
            key: &attend.key[elements.clone()],
            value: &attend.value[elements.clone()],
            ..attend
        };
        for head in 0..heads {
            attend_head(s, row, head * d, d, &mut out[elements.clone()], scratch);
        }
    }
}

/// One head of one row: the elements from `first` on, `d` of them.
#[inline(always)]
fn attend_head<S: Lanes>(
    s: S,
    row: Attend<'_>,
    first: usize,
    d: usize,
    out: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let tokens = row.query.len() / row.width;
    // A row of one block of keys has it packed once for all its queries.
    let keys_fit = tokens <= KEYS;
    if keys_fit && tokens > 0 {
        pack_block(s, row, first, d, 0..tokens, scratch);
    }
    for query in (0..tokens).step_by(QUERIES) {
        let queries = query..tokens.min(query + QUERIES);
        scratch.peaks.fill(f32::NEG_INFINITY);
        scratch.sums.fill(0.0);
        let seen = if row.causal { queries.end } else { tokens };
        for key in (0..seen).step_by(KEYS) {
            let keys = key..seen.min(key + KEYS);
            if !keys_fit {
                pack_block(s, row, first, d, keys.clone(), scratch);
            }
            score_block(s, row, first, d, queries.clone(), keys.clone(), scratch);
            for index in 0..queries.len() {
                let visible = match row.causal {
                    true => (queries.start + index + 1).clamp(keys.start, keys.end) - keys.start,
                    false => keys.len(),
                };
                let to = &mut out[(queries.start + index) * row.width + first..][..d];
                soften(s, index, visible, keys.len(), d, to, scratch);
            }
            add_block(s, queries.clone(), keys, (row.width, first, d), key == 0, out, scratch);
        }
        for index in 0..queries.len() {
            let to = &mut out[(queries.start + index) * row.width + first..][..d];
            scale_row(s, to, 1.0 / scratch.sums[index]);
        }
    }
}

/// Transposes a block's keys, and copies its values to where whole vectors can be read.
#[inline(always)]
fn pack_block<S: Lanes>(
    s: S,
    row: Attend<'_>,
    first: usize,
    d: usize,
    keys: std::ops::Range<usize>,
    scratch: &mut AttentionScratch,
) {
    let padded = d.next_multiple_of(S::N);
    let packed_keys = scratch.keys.as_mut_slice();
    for (column, token) in keys.clone().enumerate() {
        let key = &row.key[token * row.width + first..][..d];
        for (k, element) in key.iter().enumerate() {
            packed_keys[k * KEYS + column] = *element;
        }
    }
    // What an earlier row left in the last vector's other lanes must not make slow numbers.
    let filled = keys.len().next_multiple_of(S::N);
    for k in 0..d {
        packed_keys[k * KEYS + keys.len()..k * KEYS + filled].fill(0.0);
    }
    scratch.is_finite = true;
    let packed_values = scratch.values.as_mut_slice();
    for (place, token) in keys.enumerate() {
        let value = &row.value[token * row.width + first..][..d];
        if row.causal {
            scratch.is_finite &= value.iter().all(|element| element.is_finite());
        }
        let packed = &mut packed_values[place * padded..][..padded];
        for (part, to) in value.chunks(S::N).zip(packed.chunks_exact_mut(S::N)) {
            let part = s.load(part);
            s.store(to, part);
        }
    }
}

/// The scores of a block: queries by keys.
#[inline(always)]
fn score_block<S: Lanes>(
    s: S,
    row: Attend<'_>,
    first: usize,
    d: usize,
    queries: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
    scratch: &mut AttentionScratch,
) {
    let step = TILE_VECTORS * S::N;
    let scores = scratch.scores.as_mut_slice();
    for (place, query) in queries.clone().enumerate().step_by(S::TILE_ROWS) {
        let rows = S::TILE_ROWS.min(queries.end - query);
        for column in (0..keys.len()).step_by(step) {
            let vectors = (keys.len() - column).min(step).div_ceil(S::N);
            let operands = Operands {
                depth: d,
                left: row.query[query * row.width + first..].as_ptr(),
                left_stride: row.width,
                right: scratch.keys.as_slice()[column..].as_ptr(),
                right_stride: KEYS,
                coming: Coming::NOTHING,
            };
            let mut write = Write {
                to: scores[place * KEYS + column..].as_mut_ptr(),
                stride: KEYS,
                columns: vectors * S::N,
            };
            // SAFETY: the queries' rows are there; keys and scores are KEYS wide, whole vectors.
            unsafe { tile(s, (rows, vectors), operands, &mut write) };
        }
    }
}

/// Makes one query's scores of a block into weights, and brings what was summed before down to the
/// new greatest score. Keys that the query does not see get weight 0.
#[inline(always)]
fn soften<S: Lanes>(
    s: S,
    index: usize,
    visible: usize,
    keys: usize,
    d: usize,
    out: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let scale = 1.0 / (d as f32).sqrt();
    let scores = &mut scratch.scores.as_mut_slice()[index * KEYS..][..keys];
    let (seen, hidden) = scores.split_at_mut(visible);
    hidden.fill(0.0);
    let before = scratch.peaks[index];
    let peak = before.max(softmax_peak(s, seen));
    // Where all scores so far are -inf nothing is summed yet, and 0 stands for the peak.
    let at = if peak == f32::NEG_INFINITY { 0.0 } else { peak };
    let sum = exponentials(s, seen, at, scale);
    scratch.peaks[index] = peak;
    if peak > before && before > f32::NEG_INFINITY {
        let shrink = ((before - peak) * scale).exp();
        scratch.sums[index] *= shrink;
        scale_row(s, out, shrink);
    }
    scratch.sums[index] += sum;
}

/// Adds the block's values by their weights.
#[inline(always)]
fn add_block<S: Lanes>(
    s: S,
    queries: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
    (width, first, d): (usize, usize, usize),
    is_first: bool,
    out: &mut [f32],
    scratch: &mut AttentionScratch,
) {
    let padded = d.next_multiple_of(S::N);
    let step = TILE_VECTORS * S::N;
    // Where a hidden value is not finite each query stops at the last key that it sees.
    let tile_rows = if scratch.is_finite { S::TILE_ROWS } else { 1 };
    for (place, query) in queries.clone().enumerate().step_by(tile_rows) {
        let rows = tile_rows.min(queries.end - query);
        let depth = match scratch.is_finite {
            true => keys.len(),
            false => (query + 1).clamp(keys.start, keys.end) - keys.start,
        };
        for column in (0..d).step_by(step) {
            let columns = step.min(d - column);
            let operands = Operands {
                depth,
                left: scratch.scores.as_slice()[place * KEYS..].as_ptr(),
                left_stride: KEYS,
                right: scratch.values.as_slice()[column..].as_ptr(),
                right_stride: padded,
                coming: Coming::NOTHING,
            };
            let vectors = columns.div_ceil(S::N);
            let mut write = match is_first {
                true => {
                    Write { to: out[query * width + first + column..].as_mut_ptr(), stride: width, columns }
                }
                false => Write {
                    to: scratch.added.as_mut_slice()[place * padded + column..].as_mut_ptr(),
                    stride: padded,
                    columns: vectors * S::N,
                },
            };
            // SAFETY: scores have these rows, values are padded to whole vectors, and `out` or
            // `added` have the tile's rows with so many columns.
            unsafe { tile(s, (rows, vectors), operands, &mut write) };
        }
    }
    if is_first {
        return;
    }
    let added = scratch.added.as_slice();
    for (place, query) in queries.enumerate() {
        let to = &mut out[query * width + first..][..d];
        for (part, added) in to.chunks_mut(S::N).zip(added[place * padded..][..d].chunks(S::N)) {
            let sum = s.add(s.load(part), s.load(added));
            s.store(part, sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    /// Attention in `f64`, as it is written in a book.
    fn exact(attend: Attend<'_>, offsets: &[i32]) -> Vec<f64> {
        let (width, d) = (attend.width, attend.width / attend.heads);
        let mut out = vec![0.0; attend.query.len()];
        for row in offsets.windows(2) {
            for head in 0..attend.heads {
                for query in row[0]..row[1] {
                    let end = if attend.causal { query + 1 } else { row[1] };
                    let at = |token: i32, k: usize| token as usize * width + head * d + k;
                    let scores: Vec<f64> = (row[0]..end)
                        .map(|key| {
                            let products = (0..d).map(|k| {
                                f64::from(attend.query[at(query, k)]) * f64::from(attend.key[at(key, k)])
                            });
                            products.sum::<f64>() / (d as f64).sqrt()
                        })
                        .collect();
                    let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|score| (score - peak).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for k in 0..d {
                        for (key, weight) in (row[0]..end).zip(&weights) {
                            out[at(query, k)] += weight / sum * f64::from(attend.value[at(key, k)]);
                        }
                    }
                }
            }
        }
        out
    }

    #[test]
    fn rows_of_every_length_attend_to_themselves_alone() {
        let mut rng = StdRng::seed_from_u64(2);
        for isa in Isa::all() {
            for (heads, d) in [(1, 1), (3, 5), (2, 32), (1, 64), (2, 50)] {
                let offsets = [0, 1, 1, 33, 40, 136, 233, 533];
                let width = heads * d;
                let mut random = |scale: f32| -> Vec<f32> {
                    (0..533 * width).map(|_| rng.random_range(-scale..scale)).collect()
                };
                let (query, key, value) = (random(3.0), random(3.0), random(1.0));
                for causal in [false, true] {
                    let attend = Attend { query: &query, key: &key, value: &value, width, heads, causal };
                    let mut out = vec![f32::NAN; query.len()];
                    attention(isa, attend, &offsets, &mut out, &mut AttentionScratch::default());
                    for (place, (made, exact)) in out.iter().zip(exact(attend, &offsets)).enumerate() {
                        assert!(
                            (f64::from(*made) - exact).abs() < 2e-5,
                            "{isa} {heads}x{d} causal {causal} at {place}: {made}, not {exact}"
                        );
                    }
                }
            }
        }
    }
}
