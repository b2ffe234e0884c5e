//! Memory whose first byte is at a cache line's beginning.

/// `f32`s from a cache line's beginning on.
#[derive(Default)]
pub(super) struct Aligned {
    lines: Vec<Line>,
    length: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

impl Aligned {
    /// `length` zeros.
    pub(super) fn zeroed(length: usize) -> Aligned {
        Aligned { lines: vec![Line([0.0; 16]); length.div_ceil(16)], length }
    }

    /// Makes it at least so long; what it held is lost where it grows.
    pub(super) fn reserve(&mut self, length: usize) {
        if length > self.length {
            // The old memory goes first, so that there is never both.
            *self = Aligned::default();
            *self = Aligned::zeroed(length);
        }
    }

    /// All elements.
    pub(super) fn as_slice(&self) -> &[f32] {
        // SAFETY: lines are arrays of `f32` without padding, and there are enough of them.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.length) }
    }

    /// All elements.
    pub(super) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.length) }
    }

    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.lines[..])
    }
}
