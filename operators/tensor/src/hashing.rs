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

#[cfg(test)]
mod tests {
    use super::*;

    // Made by another program, from the papers' and reference codes' definitions. Signatures that
    // somebody stored depend on every one of them.
    #[test]
    fn golden_vectors() {
        let mixed = [0, 1, u64::MAX].map(splitmix64);
        assert_eq!(mixed, [0xe220_a839_7b1d_cdaf, 0x910a_2dec_8902_5cc1, 0xe4d9_7177_1b65_2c20]);
        assert_eq!([0, 1, 0xdead_beef].map(fmix32), [0, 0x514e_28b7, 0x0de5_c6a9]);
        let parameters =
            [(0, 0), (7, 3), (u64::MAX, 127)].map(|(seed, index)| min_hash_parameters(seed, index));
        let expected = [(0x4d19_7e6f, 0xa706_dd2f), (0xd977_b47d, 0xc49f_16ad), (0x17ad_194f, 0xbe42_355c)];
        assert_eq!(parameters, expected);
        let hashes = [0, 101, -1].map(|token| min_hash(token, parameters[1]));
        assert_eq!(hashes, [0xc8d0_8074, 0x6371_996a, 0x613f_f6a1]);
        assert_eq!([token_key(0, 0), token_key(7, 3)], [0xa706_dd2f_4d19_7e6f, 0xe880_a903_bcff_6547]);
        let key = token_key(7, 0);
        let hashes = [0, 101, -1].map(|token| token_hash(token, key));
        assert_eq!(hashes, [0x4e6c_cac8_3849_c89a, 0x3ad8_b60b_e8b4_b13f, 0xcd84_8926_d8d6_26ad]);
        let features = [0, 101, -1, 30_521].map(|token| feature(token, key, 1_000));
        assert_eq!(features, [(219, 1), (909, 1), (847, -1), (841, -1)]);
    }

    #[test]
    fn golden_signature() {
        let tokens = [101, 2023, 2003, 1037, 102];
        let signature = [0, 1, 2, 3].map(|index| {
            let parameters = min_hash_parameters(42, index);
            tokens.iter().map(|&token| min_hash(token, parameters)).min()
        });
        assert_eq!(signature, [0x5008_d4ab, 0x0a05_1029, 0x0a6e_df69, 0x16db_c50c].map(Some));
    }

    #[test]
    fn columns_are_within_the_width() {
        for width in [1, 2, 1_000, u32::MAX as usize] {
            assert!((0..1_000).all(|token| feature(token, token_key(1, 0), width).0 < width));
        }
    }
}
