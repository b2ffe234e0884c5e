//! Vectors as fields of a record: `[f32; N]` and `[i8; N]` are `FixedSizeList` columns, as tensor
//! transforms make them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeListArray, NullBufferBuilder, PrimitiveArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Float32Type, Int8Type};

use super::ColumnType;

/// Gathers vectors of one width.
pub struct VectorBuilder<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    valid: NullBufferBuilder,
}

impl<T: ArrowPrimitiveType> Default for VectorBuilder<T> {
    fn default() -> Self {
        VectorBuilder { values: Vec::new(), valid: NullBufferBuilder::new(0) }
    }
}

fn item<T: ArrowPrimitiveType>() -> Arc<Field> {
    Arc::new(Field::new("item", T::DATA_TYPE, false))
}

macro_rules! vector_column {
    ($($rust:ty => $arrow:ty, $zero:expr;)*) => {$(
        impl<const N: usize> ColumnType for [$rust; N] {
            type Array = FixedSizeListArray;
            type Value<'a> = &'a [$rust; N];
            type Builder = VectorBuilder<$arrow>;

            fn data_type() -> DataType {
                DataType::FixedSizeList(item::<$arrow>(), N as i32)
            }

            fn read(array: &FixedSizeListArray, row: usize) -> &[$rust; N] {
                let values = array.values().as_primitive::<$arrow>().values();
                // The column's width was compared with the type's when it was found.
                values.get(row * N..).and_then(|values| values.first_chunk()).unwrap_or(const { &[$zero; N] })
            }

            fn borrow(&self) -> &[$rust; N] {
                self
            }

            fn own(value: &[$rust; N]) -> Self {
                *value
            }

            fn value_bytes(value: &[$rust; N]) -> usize {
                size_of_val(value)
            }

            fn append(builder: &mut Self::Builder, value: &[$rust; N]) {
                builder.values.extend_from_slice(value);
                builder.valid.append_non_null();
            }

            fn append_null(builder: &mut Self::Builder) {
                builder.values.extend([$zero; N]);
                builder.valid.append_null();
            }

            fn finish(builder: &mut Self::Builder) -> ArrayRef {
                let VectorBuilder { values, mut valid } = std::mem::take(builder);
                let rows = valid.len();
                let values = PrimitiveArray::<$arrow>::new(ScalarBuffer::from(values), None);
                let list = FixedSizeListArray::try_new_with_length(
                    item::<$arrow>(),
                    N as i32,
                    Arc::new(values),
                    valid.finish(),
                    rows,
                );
                match list {
                    Ok(list) => Arc::new(list),
                    // As many values as rows times the width: it cannot be.
                    Err(_) => arrow::array::new_null_array(&Self::data_type(), rows),
                }
            }
        }
    )*};
}

vector_column! {
    f32 => Float32Type, 0.0;
    i8 => Int8Type, 0;
}
