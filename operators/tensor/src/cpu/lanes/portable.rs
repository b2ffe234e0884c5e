//! 4 lanes in plain Rust, which every compiler makes vectors of.

use super::Lanes;

/// Exists everywhere.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

/// `2^exponent` for whole exponents from -126 to 127.
#[inline(always)]
fn power(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) << 23) as u32)
}

// SAFETY of all below: pointers are as promised.
impl Lanes for Portable {
    type V = [f32; 4];
    const N: usize = 4;
    const TILE_ROWS: usize = 4;

    #[inline(always)]
    fn splat(self, value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load_from(self, from: *const f32) -> [f32; 4] {
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_to(self, to: *mut f32, value: [f32; 4]) {
        unsafe { to.cast::<[f32; 4]>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn load_part_from(self, from: *const f32, count: usize) -> [f32; 4] {
        let mut value = [0.0; 4];
        unsafe { value.as_mut_ptr().copy_from_nonoverlapping(from, count) };
        value
    }
    #[inline(always)]
    unsafe fn store_part_to(self, to: *mut f32, value: [f32; 4], count: usize) {
        unsafe { to.copy_from_nonoverlapping(value.as_ptr(), count) }
    }
    #[inline(always)]
    unsafe fn store_bytes_to(self, to: *mut i8, value: [f32; 4], count: usize) {
        let bytes = value.map(|lane| lane.round_ties_even() as i8);
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), count) }
    }
    #[inline(always)]
    unsafe fn load_bytes_from(self, from: *const i8, count: usize) -> [f32; 4] {
        let mut bytes = [0i8; 4];
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(from, count) };
        bytes.map(f32::from)
    }
    #[inline(always)]
    fn add(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        // Not `f32::mul_add`: without the instruction that is a slow call.
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }
    #[inline(always)]
    fn max(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max_or_nan(self, a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        each(a, b, |a, b| if a > b || a.is_nan() { a } else { b })
    }
    #[inline(always)]
    fn abs(self, a: [f32; 4]) -> [f32; 4] {
        a.map(f32::abs)
    }
    #[inline(always)]
    fn round(self, a: [f32; 4]) -> [f32; 4] {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn scale(self, a: [f32; 4], exponent: [f32; 4]) -> [f32; 4] {
        each(a, exponent, |a, exponent| {
            let whole = exponent as i32;
            let half = whole >> 1;
            a * power(half) * power(whole - half)
        })
    }
    #[inline(always)]
    fn at_least(self, a: [f32; 4], b: [f32; 4]) -> u32 {
        (0..4).map(|lane| u32::from(a[lane] >= b[lane]) << lane).sum()
    }
    #[inline(always)]
    fn sum(self, a: [f32; 4]) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn greatest(self, a: [f32; 4]) -> f32 {
        a[0].max(a[1]).max(a[2].max(a[3]))
    }
}
