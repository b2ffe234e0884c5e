//! MinHash, SimHash and feature hashing of token sets.

use super::isa::kernel;
use super::lanes::Lanes;
use crate::hashing::{feature, min_hash, min_hash_parameters, token_hash, token_key};

/// The hashes of a MinHash, parameter by parameter, so that they are done side by side.
pub(super) struct MinHash {
    factors: Vec<u32>,
    addends: Vec<u32>,
}

impl MinHash {
    pub(super) fn new(hashes: usize, seed: u64) -> MinHash {
        let (factors, addends) = (0..hashes as u64).map(|index| min_hash_parameters(seed, index)).unzip();
        MinHash { factors, addends }
    }
}

kernel! {
    /// The least of each hash over each row's tokens.
    pub(super) fn min_hashes = min_hash_rows(hashes: &MinHash, tokens: &[i32], offsets: &[i32], out: &mut [i32])
}
kernel! {
    /// The bits that more of a row's tokens have set than not, `keys.len()` words a row.
    pub(super) fn sim_hashes = sim_hash_rows(keys: &[u64], tokens: &[i32], offsets: &[i32], out: &mut [i64])
}

/// The tokens of each row.
fn rows<'a>(tokens: &'a [i32], offsets: &'a [i32]) -> impl Iterator<Item = &'a [i32]> {
    let start = offsets.first().copied().unwrap_or_default();
    offsets.windows(2).map(move |row| &tokens[(row[0] - start) as usize..(row[1] - start) as usize])
}

#[inline(always)]
fn min_hash_rows<S: Lanes>(_: S, hashes: &MinHash, tokens: &[i32], offsets: &[i32], out: &mut [i32]) {
    for (tokens, out) in rows(tokens, offsets).zip(out.chunks_exact_mut(hashes.factors.len())) {
        out.fill(u32::MAX as i32);
        for token in tokens {
            let parameters = hashes.factors.iter().zip(&hashes.addends);
            for (least, (factor, addend)) in out.iter_mut().zip(parameters) {
                *least = min_hash(*token, (*factor, *addend)).min(*least as u32) as i32;
            }
        }
    }
}

#[inline(always)]
fn sim_hash_rows<S: Lanes>(_: S, keys: &[u64], tokens: &[i32], offsets: &[i32], out: &mut [i64]) {
    for (tokens, out) in rows(tokens, offsets).zip(out.chunks_exact_mut(keys.len())) {
        for (key, word) in keys.iter().zip(out) {
            let mut set = [0u32; 64];
            for token in tokens {
                let hash = token_hash(*token, *key);
                for (bit, count) in set.iter_mut().enumerate() {
                    *count += (hash >> bit & 1) as u32;
                }
            }
            let bits = set.iter().enumerate();
            *word = bits
                .fold(0u64, |word, (bit, count)| word | u64::from(2 * *count as usize > tokens.len()) << bit)
                as i64;
        }
    }
}

/// The key of each word of a SimHash.
pub(super) fn sim_hash_keys(words: usize, seed: u64) -> Vec<u64> {
    (0..words as u64).map(|word| token_key(seed, word)).collect()
}

/// Signed counts of each row's tokens in `width` columns.
pub(super) fn feature_hashes(width: usize, key: u64, tokens: &[i32], offsets: &[i32], out: &mut [f32]) {
    out.fill(0.0);
    for (tokens, out) in rows(tokens, offsets).zip(out.chunks_exact_mut(width)) {
        for token in tokens {
            let (column, sign) = feature(*token, key, width);
            out[column] += sign as f32;
        }
    }
}
