//! Vectors of `f32` as wide as the machine has them.
//!
//! A kernel holds a value of a type that is [`Lanes`]; one exists only where its instructions are
//! (see [`isa`](super::isa)), so what it does needs no further proof. Everything here is inlined
//! into the kernel: on its own it would be compiled without the instructions.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
pub(crate) use portable::Portable;

/// Arithmetic on vectors of [`Lanes::N`] elements.
pub(crate) trait Lanes: Copy {
    /// A vector.
    type V: Copy;
    /// Its elements.
    const N: usize;
    /// Rows of a tile of a matrix product: as many as leave registers for the rest.
    const TILE_ROWS: usize;

    fn splat(self, value: f32) -> Self::V;

    /// # Safety
    /// `N` elements must be readable.
    unsafe fn load_from(self, from: *const f32) -> Self::V;
    /// # Safety
    /// `N` elements must be writable.
    unsafe fn store_to(self, to: *mut f32, value: Self::V);
    /// The first `count` (at most `N`) elements, zeros behind them.
    ///
    /// # Safety
    /// `count` elements must be readable.
    unsafe fn load_part_from(self, from: *const f32, count: usize) -> Self::V;
    /// # Safety
    /// `count` (at most `N`) elements must be writable.
    unsafe fn store_part_to(self, to: *mut f32, value: Self::V, count: usize);
    /// Rounded to the nearest integer, ties to even, saturated to bytes; the first `count` of them.
    ///
    /// # Safety
    /// `count` (at most `N`) bytes must be writable.
    unsafe fn store_bytes_to(self, to: *mut i8, value: Self::V, count: usize);
    /// The first `count` (at most `N`) bytes as numbers, zeros behind them.
    ///
    /// # Safety
    /// `count` bytes must be readable.
    unsafe fn load_bytes_from(self, from: *const i8, count: usize) -> Self::V;

    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the machine can.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The greater; `b` where one is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The less; `b` where one is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The greater; NaN where one is.
    fn max_or_nan(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a * 2^exponent` for whole exponents from -252 to 254.
    fn scale(self, a: Self::V, exponent: Self::V) -> Self::V;
    /// A bit per lane: whether `a >= b`; not where one is NaN.
    fn at_least(self, a: Self::V, b: Self::V) -> u32;
    fn sum(self, a: Self::V) -> f32;
    /// The greatest element, where none is NaN.
    fn greatest(self, a: Self::V) -> f32;

    /// Asks for the cache line at `from`, which need not be readable, to be brought into the second cache.
    #[inline(always)]
    fn prefetch(self, from: *const f32) {
        let _ = from;
    }

    /// The first `N` elements, or all with zeros behind them.
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        // SAFETY: the slice has as many elements as are read.
        unsafe {
            match from.len() >= Self::N {
                true => self.load_from(from.as_ptr()),
                false => self.load_part_from(from.as_ptr(), from.len()),
            }
        }
    }

    /// Into the first `N` elements, or all of them.
    #[inline(always)]
    fn store(self, to: &mut [f32], value: Self::V) {
        // SAFETY: the slice has as many elements as are written.
        unsafe {
            match to.len() >= Self::N {
                true => self.store_to(to.as_mut_ptr(), value),
                false => self.store_part_to(to.as_mut_ptr(), value, to.len()),
            }
        }
    }
}
