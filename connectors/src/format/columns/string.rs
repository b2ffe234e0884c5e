//! A growing column of `Utf8View` values.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringViewArray, builder::make_view};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};

/// Strings up to this many bytes live in their view.
const INLINE_BYTES_MAX: usize = 12;
/// A data buffer is sealed before it would pass this: offsets in views are 32 bits wide.
const BLOCK_BYTES_MAX: usize = 1 << 30;

/// Views and the buffers of the longer strings. Cutting back leaves the bytes of what was cut in
/// the buffers, which only bad records do.
#[derive(Debug, Default)]
pub(crate) struct StringColumn {
    views: Vec<u128>,
    sealed: Vec<Buffer>,
    block: Vec<u8>,
    /// Bytes that the last batch needed: the next block begins with as many.
    expected_bytes: usize,
}

impl StringColumn {
    #[inline]
    pub(crate) fn push(&mut self, value: &str) {
        let bytes = value.as_bytes();
        if bytes.len() <= INLINE_BYTES_MAX {
            self.views.push(make_view(bytes, 0, 0));
            return;
        }
        if self.block.len() + bytes.len() > BLOCK_BYTES_MAX {
            self.sealed.push(Buffer::from_vec(std::mem::take(&mut self.block)));
        }
        if self.block.capacity() == 0 {
            self.block.reserve(self.expected_bytes);
        }
        let view = make_view(bytes, self.sealed.len() as u32, self.block.len() as u32);
        self.block.extend_from_slice(bytes);
        self.views.push(view);
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        self.views.truncate(rows);
    }

    pub(crate) fn finish(&mut self, nulls: Option<NullBuffer>) -> ArrayRef {
        let rows = self.views.len();
        let views = std::mem::replace(&mut self.views, Vec::with_capacity(rows));
        let mut buffers = std::mem::take(&mut self.sealed);
        self.expected_bytes = self.block.len();
        if !self.block.is_empty() {
            buffers.push(Buffer::from_vec(std::mem::take(&mut self.block)));
        }
        // SAFETY: every view was made by `make_view` from a whole `&str`, with the index and the
        // offset at which its bytes lie in `buffers`; no buffer is ever cut back.
        Arc::new(unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), buffers, nulls) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::cast::AsArray;

    #[test]
    fn short_and_long_strings_survive_a_cut() {
        let mut column = StringColumn::default();
        for value in ["short", "a string that does not fit its view", "cut away, and long enough for a block"]
        {
            column.push(value);
        }
        column.truncate(2);
        column.push("the one after the cut is where it belongs");
        let array = column.finish(None);
        array.to_data().validate_full().unwrap();
        let values: Vec<_> = array.as_string_view().iter().flatten().collect();
        let long = "a string that does not fit its view";
        assert_eq!(values, ["short", long, "the one after the cut is where it belongs"]);
    }
}
