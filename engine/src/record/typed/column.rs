//! Which Rust types can be a field of a record, and how each lies in its Arrow array.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, PrimitiveArray,
    PrimitiveBuilder, RecordBatch, StringViewArray, StringViewBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Schema, TimeUnit,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::Timestamp;
use crate::record::time_type;
use crate::{Error, Result};

/// A type that a field of a record may have. Implement it for a type of your own by passing
/// everything on to one of the types that have it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the type of a record's field",
    label = "has no Arrow column",
    note = "a field may be bool, i8 to i64, u8 to u64, f32, f64, String, Vec<u8>, Timestamp, [f32; N], [i8; N], or an Option of one of them"
)]
pub trait ColumnType: Sized + Send + Sync + 'static {
    /// The array of the column.
    type Array: Array + 'static;
    /// A value in place: `&str` for a `String`.
    type Value<'a>: Copy + Debug + PartialEq;
    /// Gathers values.
    type Builder: Default + Send;
    /// Whether a value may be missing.
    const NULLABLE: bool = false;

    /// The column's Arrow type.
    fn data_type() -> DataType;

    /// The value at `row`, where it is.
    fn read(array: &Self::Array, row: usize) -> Self::Value<'_>;

    /// Looks at an owned value.
    fn borrow(&self) -> Self::Value<'_>;

    /// Copies a value.
    fn own(value: Self::Value<'_>) -> Self;

    /// Roughly the bytes that a value takes in the column.
    fn value_bytes(value: Self::Value<'_>) -> usize {
        size_of_val(&value)
    }

    /// Appends a value.
    fn append(builder: &mut Self::Builder, value: Self::Value<'_>);

    /// Appends a missing value.
    fn append_null(builder: &mut Self::Builder);

    /// The array of what was appended; empties the builder.
    fn finish(builder: &mut Self::Builder) -> ArrayRef;
}

/// A type that the field marked `#[record(time)]` may have.
#[diagnostic::on_unimplemented(
    message = "the field marked `#[record(time)]` must be a `Timestamp`, not `{Self}`",
    label = "not a `Timestamp`"
)]
pub trait TimeColumnType: ColumnType {}

impl TimeColumnType for Timestamp {}
impl TimeColumnType for Option<Timestamp> {}

macro_rules! primitive_column {
    ($($rust:ty => $arrow:ty, $data_type:expr;)*) => {$(
        impl ColumnType for $rust {
            type Array = PrimitiveArray<$arrow>;
            type Value<'a> = $rust;
            type Builder = PrimitiveBuilder<$arrow>;

            fn data_type() -> DataType {
                $data_type
            }

            fn read(array: &Self::Array, row: usize) -> $rust {
                array.value(row)
            }

            fn borrow(&self) -> $rust {
                *self
            }

            fn own(value: $rust) -> Self {
                value
            }

            fn append(builder: &mut Self::Builder, value: $rust) {
                builder.append_value(value);
            }

            fn append_null(builder: &mut Self::Builder) {
                builder.append_null();
            }

            fn finish(builder: &mut Self::Builder) -> ArrayRef {
                Arc::new(builder.finish())
            }
        }
    )*};
}

primitive_column! {
    i8 => Int8Type, DataType::Int8;
    i16 => Int16Type, DataType::Int16;
    i32 => Int32Type, DataType::Int32;
    i64 => Int64Type, DataType::Int64;
    u8 => UInt8Type, DataType::UInt8;
    u16 => UInt16Type, DataType::UInt16;
    u32 => UInt32Type, DataType::UInt32;
    u64 => UInt64Type, DataType::UInt64;
    f32 => Float32Type, DataType::Float32;
    f64 => Float64Type, DataType::Float64;
}

impl ColumnType for bool {
    type Array = BooleanArray;
    type Value<'a> = bool;
    type Builder = BooleanBuilder;

    fn data_type() -> DataType {
        DataType::Boolean
    }

    fn read(array: &BooleanArray, row: usize) -> bool {
        array.value(row)
    }

    fn borrow(&self) -> bool {
        *self
    }

    fn own(value: bool) -> bool {
        value
    }

    fn append(builder: &mut BooleanBuilder, value: bool) {
        builder.append_value(value);
    }

    fn append_null(builder: &mut BooleanBuilder) {
        builder.append_null();
    }

    fn finish(builder: &mut BooleanBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

impl ColumnType for Timestamp {
    type Array = TimestampMicrosecondArray;
    type Value<'a> = Timestamp;
    type Builder = PrimitiveBuilder<TimestampMicrosecondType>;

    fn data_type() -> DataType {
        time_type()
    }

    fn read(array: &Self::Array, row: usize) -> Timestamp {
        Timestamp(array.value(row))
    }

    fn borrow(&self) -> Timestamp {
        *self
    }

    fn own(value: Timestamp) -> Timestamp {
        value
    }

    fn append(builder: &mut Self::Builder, value: Timestamp) {
        builder.append_value(value.0);
    }

    fn append_null(builder: &mut Self::Builder) {
        builder.append_null();
    }

    fn finish(builder: &mut Self::Builder) -> ArrayRef {
        Arc::new(builder.finish().with_data_type(time_type()))
    }
}

impl ColumnType for String {
    type Array = StringViewArray;
    type Value<'a> = &'a str;
    type Builder = StringViewBuilder;

    fn data_type() -> DataType {
        DataType::Utf8View
    }

    fn read(array: &StringViewArray, row: usize) -> &str {
        array.value(row)
    }

    fn borrow(&self) -> &str {
        self
    }

    fn own(value: &str) -> String {
        value.to_string()
    }

    fn value_bytes(value: &str) -> usize {
        size_of::<&str>() + value.len()
    }

    fn append(builder: &mut StringViewBuilder, value: &str) {
        builder.append_value(value);
    }

    fn append_null(builder: &mut StringViewBuilder) {
        builder.append_null();
    }

    fn finish(builder: &mut StringViewBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

impl ColumnType for Vec<u8> {
    type Array = BinaryArray;
    type Value<'a> = &'a [u8];
    type Builder = BinaryBuilder;

    fn data_type() -> DataType {
        DataType::Binary
    }

    fn read(array: &BinaryArray, row: usize) -> &[u8] {
        array.value(row)
    }

    fn borrow(&self) -> &[u8] {
        self
    }

    fn own(value: &[u8]) -> Vec<u8> {
        value.to_vec()
    }

    fn value_bytes(value: &[u8]) -> usize {
        size_of::<i32>() + value.len()
    }

    fn append(builder: &mut BinaryBuilder, value: &[u8]) {
        builder.append_value(value);
    }

    fn append_null(builder: &mut BinaryBuilder) {
        builder.append_null();
    }

    fn finish(builder: &mut BinaryBuilder) -> ArrayRef {
        Arc::new(builder.finish())
    }
}

impl<T: ColumnType> ColumnType for Option<T> {
    type Array = T::Array;
    type Value<'a> = Option<T::Value<'a>>;
    type Builder = T::Builder;
    const NULLABLE: bool = true;

    fn data_type() -> DataType {
        T::data_type()
    }

    fn read(array: &T::Array, row: usize) -> Option<T::Value<'_>> {
        array.is_valid(row).then(|| T::read(array, row))
    }

    fn borrow(&self) -> Option<T::Value<'_>> {
        self.as_ref().map(T::borrow)
    }

    fn own(value: Option<T::Value<'_>>) -> Self {
        value.map(T::own)
    }

    fn value_bytes(value: Option<T::Value<'_>>) -> usize {
        value.map_or(size_of::<T::Value<'_>>(), T::value_bytes)
    }

    fn append(builder: &mut T::Builder, value: Option<T::Value<'_>>) {
        match value {
            Some(value) => T::append(builder, value),
            None => T::append_null(builder),
        }
    }

    fn append_null(builder: &mut T::Builder) {
        T::append_null(builder);
    }

    fn finish(builder: &mut T::Builder) -> ArrayRef {
        T::finish(builder)
    }
}

/// Finds and downcasts one column of a batch.
///
/// # Errors
/// A user error that names the column, the expected type and the one that is there; or that it
/// has nulls though `T` cannot be missing.
pub fn column<'a, T: ColumnType>(records: &'a RecordBatch, name: &str) -> Result<&'a T::Array> {
    let index = find(records.schema_ref(), name)?;
    let array = records.column(index);
    // The array's Rust type says everything but the width of a vector.
    let typed = array.as_any().downcast_ref::<T::Array>().filter(|_| has_same_width::<T>(array.data_type()));
    let typed = typed.ok_or_else(|| mismatch(name, &T::data_type(), array.data_type()))?;
    if !T::NULLABLE && array.null_count() > 0 {
        return Err(Error::user(format!(
            "column {name:?} has {} nulls among {} rows, but its field is not an Option",
            array.null_count(),
            array.len()
        )));
    }
    Ok(typed)
}

pub(super) fn find(schema: &Schema, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let known: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Error::user(format!("there is no column {name:?} among {}", known.join(", ")))
    })
}

pub(super) fn mismatch(name: &str, expected: &DataType, found: &DataType) -> Error {
    Error::user(format!("column {name:?} should be {expected}, but is {found}"))
}

fn has_same_width<T: ColumnType>(found: &DataType) -> bool {
    !matches!(found, DataType::FixedSizeList(..)) || same_type(&T::data_type(), found)
}

/// Whether an array of type `found` can be read where `expected` is. The zone of a timestamp is
/// only a way to print it; how a vector's items are called, and whether they might be null, does not
/// matter.
pub(super) fn same_type(expected: &DataType, found: &DataType) -> bool {
    match (expected, found) {
        (DataType::Timestamp(TimeUnit::Microsecond, _), DataType::Timestamp(TimeUnit::Microsecond, _)) => {
            true
        }
        (DataType::FixedSizeList(expected, width), DataType::FixedSizeList(found, found_width)) => {
            width == found_width && expected.data_type() == found.data_type()
        }
        _ => expected == found,
    }
}
