//! The integer hashes of MinHash, SimHash and feature hashing: the same on every backend, bit for
//! bit, and pinned by golden vectors, since signatures live longer than a process.

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014) after its increment.
pub const fn splitmix64(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The finaliser of MurmurHash3 for 32 bits.
pub const fn fmix32(value: u32) -> u32 {
    let mut h = value;
    h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
    h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

/// The parameters of the `index`-th hash of a MinHash: an odd factor and an addend.
pub const fn min_hash_parameters(seed: u64, index: u64) -> (u32, u32) {
    let mixed = splitmix64(seed.wrapping_add(splitmix64(index)));
    ((mixed as u32) | 1, (mixed >> 32) as u32)
}

/// A token under one hash of a MinHash. A signature holds the least over a row's tokens, and
/// `u32::MAX` for a row without tokens (Broder 1997).
pub const fn min_hash(token: i32, (factor, addend): (u32, u32)) -> u32 {
    fmix32((token as u32).wrapping_mul(factor).wrapping_add(addend))
}

/// The key of the `word`-th 64 bits of a SimHash, or of a feature hash (word 0).
pub const fn token_key(seed: u64, word: u64) -> u64 {
    splitmix64(seed ^ splitmix64(word))
}

/// A token's 64 bits under a key. Of a SimHash (Charikar 2002), bit `b` of the result is set where
/// more of a row's tokens have bit `b` set than have not; every occurrence of a token counts.
pub const fn token_hash(token: i32, key: u64) -> u64 {
    splitmix64(token as u32 as u64 ^ key)
}

/// The column and the sign (+1 or -1) of a token in a feature hash of `width` columns
/// (Weinberger et al. 2009).
pub const fn feature(token: i32, key: u64, width: usize) -> (usize, i32) {
    let hash = token_hash(token, key);
    let column = ((hash as u32 as u64).wrapping_mul(width as u64) >> 32) as usize;
    (column, if hash >> 63 == 0 { 1 } else { -1 })
}
