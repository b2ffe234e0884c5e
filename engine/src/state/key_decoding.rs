//! The inverse of the key encoding: columns from encoded keys, for what an operator emits when a
//! timer fires and no row is at hand.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BinaryViewBuilder, BooleanBuilder, FixedSizeBinaryBuilder, LargeBinaryBuilder,
    LargeStringBuilder, NullArray, PrimitiveArray, StringBuilder, StringViewBuilder,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Date64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::key_encoding::{TAG_BINARY, TAG_BOOL, TAG_NULL, TAG_UTF8, tag_of};
use super::varint;
use crate::{Error, Result};

const SIGN_BIT: u64 = 1 << 63;

/// The columns of one key, each with one row.
///
/// # Errors
/// As [`decode_keys`].
pub fn decode_key(key: &[u8], types: &[DataType]) -> Result<Vec<ArrayRef>> {
    decode_keys(&[key], types)
}

/// The columns of encoded keys: one row for each key, one array of each of `types`.
///
/// # Errors
/// An internal error when a key is not one of these types, or is damaged; a user error when a
/// type cannot be a key.
pub fn decode_keys(keys: &[&[u8]], types: &[DataType]) -> Result<Vec<ArrayRef>> {
    let mut rest: Vec<&[u8]> = keys.to_vec();
    let mut columns = Vec::with_capacity(types.len());
    for data_type in types {
        let tag = tag_of(data_type)?;
        let parts =
            rest.iter_mut().map(|key| Part::take(key, tag, data_type)).collect::<Result<Vec<Part<'_>>>>()?;
        columns.push(column(&parts, data_type)?);
    }
    match rest.iter().position(|key| !key.is_empty()) {
        None => Ok(columns),
        Some(row) => Err(damaged(keys[row], "more bytes than columns")),
    }
}

fn damaged(key: &[u8], what: &str) -> Error {
    Error::internal(format!("encoded key {key:02x?}: {what}"))
}

/// One part of one key.
#[derive(Clone, Copy)]
enum Part<'a> {
    Null,
    Boolean(bool),
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Part<'a> {
    /// Takes a part off the front of `key`.
    fn take(key: &mut &'a [u8], tag: u8, data_type: &DataType) -> Result<Part<'a>> {
        let whole = *key;
        let (&found, rest) = whole.split_first().ok_or_else(|| damaged(whole, "fewer parts than columns"))?;
        if found == TAG_NULL {
            *key = rest;
            return Ok(Part::Null);
        }
        if found != tag {
            return Err(damaged(whole, &format!("tag {found:#04x} is not that of {data_type}")));
        }
        match tag {
            TAG_BOOL => {
                let (&value, rest) = rest.split_first().ok_or_else(|| damaged(whole, "cut short"))?;
                *key = rest;
                Ok(Part::Boolean(value != 0))
            }
            TAG_UTF8 | TAG_BINARY => {
                let (value, rest) = varint::read_slice(rest)?;
                *key = rest;
                Ok(Part::Bytes(value))
            }
            _ => {
                let (value, rest) = rest.split_first_chunk().ok_or_else(|| damaged(whole, "cut short"))?;
                *key = rest;
                Ok(Part::Number(u64::from_be_bytes(*value)))
            }
        }
    }

    fn boolean(self) -> Option<bool> {
        match self {
            Part::Boolean(value) => Some(value),
            _ => None,
        }
    }

    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Part::Bytes(value) => Some(value),
            _ => None,
        }
    }

    fn string(self) -> Result<Option<&'a str>> {
        let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|_| damaged(bytes, "not UTF-8"));
        self.bytes().map(utf8).transpose()
    }

    fn unsigned(self) -> Option<u64> {
        match self {
            Part::Number(bits) => Some(bits),
            _ => None,
        }
    }

    fn signed(self) -> Option<i64> {
        self.unsigned().map(|bits| (bits ^ SIGN_BIT) as i64)
    }
}

fn signed<T: ArrowPrimitiveType>(parts: &[Part<'_>], data_type: &DataType) -> Result<ArrayRef>
where
    T::Native: TryFrom<i64>,
{
    numbers::<T>(parts.iter().map(|part| part.signed().map(T::Native::try_from)), data_type)
}

fn unsigned<T: ArrowPrimitiveType>(parts: &[Part<'_>], data_type: &DataType) -> Result<ArrayRef>
where
    T::Native: TryFrom<u64>,
{
    numbers::<T>(parts.iter().map(|part| part.unsigned().map(T::Native::try_from)), data_type)
}

fn numbers<T: ArrowPrimitiveType>(
    values: impl Iterator<Item = Option<Result<T::Native, impl Sized>>>,
    data_type: &DataType,
) -> Result<ArrayRef> {
    let values = values
        .map(Option::transpose)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Error::internal(format!("an encoded key does not fit into {data_type}")))?;
    Ok(Arc::new(values.into_iter().collect::<PrimitiveArray<T>>().with_data_type(data_type.clone())))
}

fn strings(parts: &[Part<'_>], mut append: impl FnMut(Option<&str>)) -> Result<()> {
    for part in parts {
        append(part.string()?);
    }
    Ok(())
}

fn column(parts: &[Part<'_>], data_type: &DataType) -> Result<ArrayRef> {
    Ok(match data_type {
        DataType::Boolean => {
            let mut builder = BooleanBuilder::with_capacity(parts.len());
            parts.iter().for_each(|part| builder.append_option(part.boolean()));
            Arc::new(builder.finish())
        }
        DataType::Int8 => signed::<Int8Type>(parts, data_type)?,
        DataType::Int16 => signed::<Int16Type>(parts, data_type)?,
        DataType::Int32 => signed::<Int32Type>(parts, data_type)?,
        DataType::Int64 => signed::<Int64Type>(parts, data_type)?,
        DataType::UInt8 => unsigned::<UInt8Type>(parts, data_type)?,
        DataType::UInt16 => unsigned::<UInt16Type>(parts, data_type)?,
        DataType::UInt32 => unsigned::<UInt32Type>(parts, data_type)?,
        DataType::UInt64 => unsigned::<UInt64Type>(parts, data_type)?,
        DataType::Date32 => signed::<Date32Type>(parts, data_type)?,
        DataType::Date64 => signed::<Date64Type>(parts, data_type)?,
        DataType::Timestamp(TimeUnit::Second, _) => signed::<TimestampSecondType>(parts, data_type)?,
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            signed::<TimestampMillisecondType>(parts, data_type)?
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            signed::<TimestampMicrosecondType>(parts, data_type)?
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => signed::<TimestampNanosecondType>(parts, data_type)?,
        DataType::Utf8 => {
            let mut builder = StringBuilder::new();
            strings(parts, |value| builder.append_option(value))?;
            Arc::new(builder.finish())
        }
        DataType::LargeUtf8 => {
            let mut builder = LargeStringBuilder::new();
            strings(parts, |value| builder.append_option(value))?;
            Arc::new(builder.finish())
        }
        DataType::Utf8View => {
            let mut builder = StringViewBuilder::new();
            strings(parts, |value| builder.append_option(value))?;
            Arc::new(builder.finish())
        }
        DataType::Binary => {
            let mut builder = BinaryBuilder::new();
            parts.iter().for_each(|part| builder.append_option(part.bytes()));
            Arc::new(builder.finish())
        }
        DataType::LargeBinary => {
            let mut builder = LargeBinaryBuilder::new();
            parts.iter().for_each(|part| builder.append_option(part.bytes()));
            Arc::new(builder.finish())
        }
        DataType::BinaryView => {
            let mut builder = BinaryViewBuilder::new();
            parts.iter().for_each(|part| builder.append_option(part.bytes()));
            Arc::new(builder.finish())
        }
        DataType::FixedSizeBinary(width) => fixed_binary(parts, *width)?,
        _ => Arc::new(NullArray::new(parts.len())),
    })
}

fn fixed_binary(parts: &[Part<'_>], width: i32) -> Result<ArrayRef> {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(parts.len(), width);
    for part in parts {
        match part.bytes() {
            Some(value) => builder.append_value(value)?,
            None => builder.append_null(),
        }
    }
    Ok(Arc::new(builder.finish()))
}
