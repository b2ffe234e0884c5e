//! A worker's view of the values of one chunk of rows.
//!
//! The one place where memory is handed out by value. That a value is never written while another
//! that is read lies in the same memory is the work of [`program`](super::program): each value has
//! a place of its own for as long as it is read.

use std::ops::Range;

use half::f16;

use super::chunk::Domains;
use super::program::Program;
use crate::op::ValueId;

/// Where something begins in memory. Workers write to parts that do not overlap.
#[derive(Clone, Copy)]
pub(super) struct Pointer(pub(super) *mut u8);

// SAFETY: what is done through a pointer is the view's to answer for.
unsafe impl Send for Pointer {}
// SAFETY: as above.
unsafe impl Sync for Pointer {}

impl Pointer {
    /// `bytes` further on.
    pub(super) fn at(self, bytes: usize) -> Pointer {
        Pointer(self.0.wrapping_add(bytes))
    }
}

/// Values of a chunk.
pub(super) struct View<'a> {
    pub(super) program: &'a Program,
    /// Where each value's part for this chunk begins; null for one that is not there.
    pub(super) values: &'a [Pointer],
    /// The same for the buffers.
    pub(super) buffers: &'a [Pointer],
    /// Tensors of the chunk in each domain.
    pub(super) tensors: &'a [usize],
    pub(super) domains: &'a Domains<'a>,
    /// Rows of the chunk.
    pub(super) rows: Range<usize>,
}

impl View<'_> {
    /// Elements of one tensor of a value.
    pub(super) fn width(&self, value: ValueId) -> usize {
        self.program.value(value).width
    }

    /// Elements of its innermost vectors.
    pub(super) fn last(&self, value: ValueId) -> usize {
        self.program.value(value).last
    }

    /// Bytes of its innermost vectors.
    pub(super) fn bytes_of_last(&self, value: ValueId) -> usize {
        self.program.value(value).last * self.program.value(value).element_bytes
    }

    /// The chunk's row offsets, in tokens, in the domain of a value.
    pub(super) fn offsets(&self, value: ValueId) -> &[i32] {
        let offsets = self.domains.offsets[self.program.value(value).domain];
        offsets.map_or(&[], |offsets| &offsets[self.rows.start..=self.rows.end])
    }

    fn elements(&self, value: ValueId) -> usize {
        let info = self.program.value(value);
        self.tensors[info.domain] * info.width
    }

    /// A value to read. `T` is what it is held as.
    pub(super) fn read<T: Held>(&self, value: ValueId) -> &[T] {
        debug_assert_eq!(size_of::<T>(), self.program.value(value).element_bytes);
        // SAFETY: the place has the value's elements, written before any step that reads them, and
        // any bits are a `T`.
        unsafe { std::slice::from_raw_parts(self.pointer(value).cast(), self.elements(value)) }
    }

    /// A value to write.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn write<T: Held>(&self, value: ValueId) -> &mut [T] {
        debug_assert_eq!(size_of::<T>(), self.program.value(value).element_bytes);
        // SAFETY: as above; the step that makes a value is the only one that writes it, once, and
        // nothing that it reads lies in the same place.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(value).cast(), self.elements(value)) }
    }

    /// A value's bytes to read.
    pub(super) fn read_bytes(&self, value: ValueId) -> &[u8] {
        let bytes = self.elements(value) * self.program.value(value).element_bytes;
        // SAFETY: as in `read`.
        unsafe { std::slice::from_raw_parts(self.pointer(value), bytes) }
    }

    /// A value's bytes to write.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn write_bytes(&self, value: ValueId) -> &mut [u8] {
        let bytes = self.elements(value) * self.program.value(value).element_bytes;
        // SAFETY: as in `write`.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(value), bytes) }
    }

    fn pointer(&self, value: ValueId) -> *mut u8 {
        self.values[value.0 as usize].0
    }

    /// An `f16` input of the graph, as it came, from its buffer.
    pub(super) fn read_halves(&self, buffer: usize, value: ValueId) -> &[f16] {
        // SAFETY: the buffer is the batch's tensor of that input, which was checked.
        unsafe { std::slice::from_raw_parts(self.buffers[buffer].0.cast(), self.elements(value)) }
    }

    /// The output buffer of an `f16` value.
    #[allow(clippy::mut_from_ref)]
    pub(super) fn write_halves(&self, buffer: usize, value: ValueId) -> &mut [f16] {
        // SAFETY: the buffer was made for this value, and is written by this step alone.
        unsafe { std::slice::from_raw_parts_mut(self.buffers[buffer].0.cast(), self.elements(value)) }
    }
}

/// What a value can be held as between steps.
pub(super) trait Held: Copy {}
impl Held for f32 {}
impl Held for i8 {}
impl Held for i32 {}
impl Held for i64 {}
