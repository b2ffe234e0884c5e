//! 8 lanes of AVX2 with FMA.

use std::arch::x86_64::*;

use super::Lanes;

/// Exists where AVX2 and FMA are.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The machine must have AVX2 and FMA.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Avx2 {
        Avx2(())
    }
}

/// Eight set lanes and eight that are not: a mask of `count` lanes begins at `8 - count`.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
fn first(count: usize) -> __m256i {
    // SAFETY: AVX2 is there, see `Avx2`, and `count` is at most 8.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - count).cast()) }
}

/// `2^exponent` for whole exponents from -126 to 127.
#[inline(always)]
fn power(exponent: __m256i) -> __m256 {
    // SAFETY: AVX2 is there, see `Avx2`.
    unsafe {
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(exponent, _mm256_set1_epi32(127))))
    }
}

// SAFETY of all below: a value of the type is proof of the instructions; pointers are as promised.
impl Lanes for Avx2 {
    type V = __m256;
    const N: usize = 8;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load_from(self, from: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store_to(self, to: *mut f32, value: __m256) {
        unsafe { _mm256_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn load_part_from(self, from: *const f32, count: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(from, first(count)) }
    }
    #[inline(always)]
    unsafe fn store_part_to(self, to: *mut f32, value: __m256, count: usize) {
        unsafe { _mm256_maskstore_ps(to, first(count), value) }
    }
    #[inline(always)]
    unsafe fn store_bytes_to(self, to: *mut i8, value: __m256, count: usize) {
        unsafe {
            let whole = _mm256_cvtps_epi32(value);
            let (low, high) = (_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
            let words = _mm_packs_epi32(low, high);
            let bytes = _mm_cvtsi128_si64(_mm_packs_epi16(words, words)).to_le_bytes();
            to.copy_from_nonoverlapping(bytes.as_ptr().cast(), count);
        }
    }
    #[inline(always)]
    unsafe fn load_bytes_from(self, from: *const i8, count: usize) -> __m256 {
        unsafe {
            let mut bytes = [0i8; 8];
            bytes.as_mut_ptr().copy_from_nonoverlapping(from, count);
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(bytes.as_ptr().cast())))
        }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn max_or_nan(self, a: __m256, b: __m256) -> __m256 {
        unsafe {
            let a_is_nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a);
            _mm256_blendv_ps(_mm256_max_ps(a, b), a, a_is_nan)
        }
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn scale(self, a: __m256, exponent: __m256) -> __m256 {
        // In two steps, as the whole power may be no normal number.
        unsafe {
            let whole = _mm256_cvtps_epi32(exponent);
            let half = _mm256_srai_epi32::<1>(whole);
            let scaled = _mm256_mul_ps(a, power(half));
            _mm256_mul_ps(scaled, power(_mm256_sub_epi32(whole, half)))
        }
    }
    #[inline(always)]
    fn at_least(self, a: __m256, b: __m256) -> u32 {
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a, b)) as u32 }
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        unsafe {
            let halves = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
            _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)))
        }
    }
    #[inline(always)]
    fn greatest(self, a: __m256) -> f32 {
        unsafe {
            let halves = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pairs = _mm_max_ps(halves, _mm_movehl_ps(halves, halves));
            _mm_cvtss_f32(_mm_max_ss(pairs, _mm_movehdup_ps(pairs)))
        }
    }
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
}
