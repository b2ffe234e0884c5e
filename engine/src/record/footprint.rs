//! What arrays keep alive, what their rows take, and copies that keep nothing else.

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, MutableArrayData, make_array};
use arrow::datatypes::{ByteViewType, DataType};

use crate::Result;

/// What an array is beside its buffers: itself, its type, its place in a batch.
const ARRAY_BYTES: usize = 128;
/// What a buffer is beside its bytes: its counts and what the allocator adds.
const BUFFER_BYTES: usize = 64;
/// Strings up to this many bytes live in their view.
const INLINE_BYTES_MAX: u32 = 12;

/// Adds up what arrays keep alive; a buffer that they share counts once.
#[derive(Default)]
pub(super) struct Footprint {
    /// Where each buffer's allocation begins, and its bytes.
    buffers: Vec<(usize, usize)>,
    arrays: usize,
}

impl Footprint {
    /// Adds an array.
    pub(super) fn add(&mut self, array: &dyn Array) {
        self.add_data(&array.to_data());
    }

    fn add_data(&mut self, data: &ArrayData) {
        self.arrays += 1;
        for buffer in data.buffers().iter().chain(data.nulls().map(|nulls| nulls.buffer())) {
            let bytes = buffer.capacity().max(buffer.len());
            self.buffers.push((buffer.data_ptr().as_ptr() as usize, bytes));
        }
        data.child_data().iter().for_each(|child| self.add_data(child));
    }

    /// What all of them keep alive, in bytes.
    pub(super) fn bytes(mut self) -> usize {
        self.buffers.sort_unstable();
        self.buffers.dedup_by_key(|buffer| buffer.0);
        let buffers: usize = self.buffers.iter().map(|(_, bytes)| bytes + BUFFER_BYTES).sum();
        buffers + self.arrays * ARRAY_BYTES
    }
}

/// What a copy of an array would take, in bytes.
pub(super) fn rows_bytes(array: &dyn Array) -> usize {
    let nulls = if array.nulls().is_some() { array.len().div_ceil(8) } else { 0 };
    let children = match array.data_type() {
        DataType::Utf8View => return nulls + views_bytes(array.as_string_view()),
        DataType::BinaryView => return nulls + views_bytes(array.as_binary_view()),
        DataType::Struct(_) => array.as_struct().columns().iter().map(|child| rows_bytes(child)).sum(),
        DataType::FixedSizeList(..) => rows_bytes(array.as_fixed_size_list().values()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            list_bytes(list.offsets(), list.values())
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            list_bytes(list.offsets(), list.values())
        }
        DataType::Map(..) => list_bytes(array.as_map().offsets(), array.as_map().entries()),
        _ => {
            let data = array.to_data();
            return data.get_slice_memory_size().unwrap_or_else(|_| data.get_buffer_memory_size());
        }
    };
    nulls + children
}

fn list_bytes<O: arrow::array::OffsetSizeTrait>(offsets: &[O], values: &dyn Array) -> usize {
    let ends = (offsets.first().map(|first| first.as_usize()), offsets.last().map(|last| last.as_usize()));
    let (Some(first), Some(last)) = ends else { return 0 };
    size_of_val(offsets) + rows_bytes(&values.slice(first, last - first))
}

fn views_bytes<T: ByteViewType + ?Sized>(array: &arrow::array::GenericByteViewArray<T>) -> usize {
    let views = size_of_val(array.views().as_ref() as &[u128]);
    if array.data_buffers().is_empty() {
        return views;
    }
    // The low 32 bits of a view are its length. What a null's view says is nobody's.
    let long = array.views().iter().map(|&view| view as u32).filter(|&length| length > INLINE_BYTES_MAX);
    views + long.map(|length| length as usize).sum::<usize>()
}

/// The array in buffers that hold its rows and little else; itself, when it is in such buffers.
///
/// # Errors
/// An Arrow error from the copying kernel.
pub(super) fn copied(array: &ArrayRef) -> Result<ArrayRef> {
    let mut footprint = Footprint::default();
    footprint.add(array);
    let overhead = footprint.arrays * ARRAY_BYTES + footprint.buffers.len() * BUFFER_BYTES;
    let rows = rows_bytes(array);
    if footprint.bytes() <= overhead + rows + rows / 4 {
        return Ok(array.clone());
    }
    let data = array.to_data();
    // Views are taken as they are, and copied once their data is.
    let mut copy = MutableArrayData::new(vec![&data], false, data.len());
    copy.try_extend(0, 0, data.len())?;
    Ok(make_array(without_foreign_data(copy.freeze())?))
}

/// Copies the data of views, at any depth.
fn without_foreign_data(data: ArrayData) -> Result<ArrayData> {
    match data.data_type() {
        DataType::Utf8View => Ok(make_array(data).as_string_view().gc().to_data()),
        DataType::BinaryView => Ok(make_array(data).as_binary_view().gc().to_data()),
        _ if data.child_data().is_empty() => Ok(data),
        _ => {
            let children = data.child_data().iter().cloned().map(without_foreign_data);
            let children = children.collect::<Result<Vec<_>>>()?;
            Ok(data.into_builder().child_data(children).build()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int32Builder, ListBuilder, StringViewBuilder, StructArray};
    use std::sync::Arc;

    /// Lists of long strings, in a struct.
    fn nested(rows: usize) -> ArrayRef {
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        let mut numbers = Int32Builder::new();
        for row in 0..rows {
            lists.values().append_value("a string that does not fit its view".repeat(1 + row % 3));
            lists.values().append_null();
            lists.append(row % 5 != 0);
            numbers.append_value(row as i32);
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        let field = |name: &str, array: &ArrayRef| {
            Arc::new(arrow::datatypes::Field::new(name, array.data_type().clone(), true))
        };
        let numbers: ArrayRef = Arc::new(numbers.finish());
        Arc::new(StructArray::from(vec![(field("l", &lists), lists), (field("n", &numbers), numbers)]))
    }

    #[test]
    fn h8_strings_at_any_depth_are_counted_and_copied() {
        let whole = nested(10_000);
        let slice = whole.slice(5_000, 10);
        let bytes = |array: &ArrayRef| {
            let mut footprint = Footprint::default();
            footprint.add(array);
            footprint.bytes()
        };
        assert!(bytes(&slice) > 500_000, "{}", bytes(&slice));
        assert!((300..3_000).contains(&rows_bytes(&slice)), "{}", rows_bytes(&slice));
        let copy = copied(&slice).unwrap();
        copy.to_data().validate_full().unwrap();
        assert_eq!(&copy, &slice);
        assert!(bytes(&copy) < 5_000, "{}", bytes(&copy));
        assert!(rows_bytes(&whole) > 500_000 && rows_bytes(&whole) <= bytes(&whole));
    }
}
