//! The injective, type-tagged encoding of keys and their hash.
//!
//! Pinned: which key group a key belongs to, and so every snapshot, depends on it. Golden vectors
//! below hold it fast; it may grow new tags and must never change an old one.
//!
//! A key is a tuple of columns; its encoding is the encodings of its parts one after the other.
//! Each part begins with a tag and says itself where it ends, so no two tuples share an encoding:
//!
//! | tag | type | then |
//! |---|---|---|
//! | `00` | null of any type | nothing |
//! | `01` | Boolean | `00` or `01` |
//! | `02` | Int8, Int16, Int32, Int64 | 8 bytes, big endian, sign bit flipped |
//! | `03` | UInt8, UInt16, UInt32, UInt64 | 8 bytes, big endian |
//! | `04` | Utf8, LargeUtf8, Utf8View | length as LEB128, bytes |
//! | `05` | Binary, LargeBinary, BinaryView, FixedSizeBinary | length as LEB128, bytes |
//! | `06` `07` `08` `09` | Timestamp in s, ms, us, ns (any zone) | as Int64 |
//! | `0a` `0b` | Date32, Date64 | as Int64 |
//!
//! Integers of one signedness encode alike, so a key column may be widened without its state
//! moving. Floats are no keys: `NaN` and the two zeros have no equality a user would expect.
//! The hash is `xxh3_64` of the encoding with the seed [`KEY_HASH_SEED`].

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt64Array};
use arrow::array::{BinaryArray, BinaryViewArray, FixedSizeBinaryArray, LargeBinaryArray};
use arrow::array::{LargeStringArray, StringArray, StringViewArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use super::key_decoding::{decode_key, decode_keys};
use super::varint;
use crate::{Error, Result};

/// The seed of every key hash. Pinned.
pub const KEY_HASH_SEED: u64 = u64::from_be_bytes(*b"thalweg1");

pub(super) const TAG_NULL: u8 = 0x00;
pub(super) const TAG_BOOL: u8 = 0x01;
pub(super) const TAG_SIGNED: u8 = 0x02;
pub(super) const TAG_UNSIGNED: u8 = 0x03;
pub(super) const TAG_UTF8: u8 = 0x04;
pub(super) const TAG_BINARY: u8 = 0x05;
pub(super) const TAG_SECONDS: u8 = 0x06;
pub(super) const TAG_MILLIS: u8 = 0x07;
pub(super) const TAG_MICROS: u8 = 0x08;
pub(super) const TAG_NANOS: u8 = 0x09;
pub(super) const TAG_DATE32: u8 = 0x0a;
pub(super) const TAG_DATE64: u8 = 0x0b;

const SIGN_BIT: u64 = 1 << 63;

/// The hash of one encoded key.
pub fn hash_key(key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, KEY_HASH_SEED)
}

/// The tag of a type's values.
///
/// # Errors
/// A user error when the type cannot be a key.
pub(super) fn tag_of(data_type: &DataType) -> Result<u8> {
    Ok(match data_type {
        DataType::Null => TAG_NULL,
        DataType::Boolean => TAG_BOOL,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => TAG_SIGNED,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => TAG_UNSIGNED,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => TAG_UTF8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            TAG_BINARY
        }
        DataType::Timestamp(TimeUnit::Second, _) => TAG_SECONDS,
        DataType::Timestamp(TimeUnit::Millisecond, _) => TAG_MILLIS,
        DataType::Timestamp(TimeUnit::Microsecond, _) => TAG_MICROS,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => TAG_NANOS,
        DataType::Date32 => TAG_DATE32,
        DataType::Date64 => TAG_DATE64,
        other => {
            return Err(Error::user(format!(
                "a column of type {other} cannot be a key; keys are booleans, integers, strings, binary, \
                 timestamps and dates"
            )));
        }
    })
}

/// Encodes keys of a fixed tuple of types.
#[derive(Clone, Debug)]
pub struct KeyEncoder {
    types: Vec<DataType>,
}

impl KeyEncoder {
    /// For keys of these column types, in their order.
    ///
    /// # Errors
    /// A user error when a type cannot be a key.
    pub fn new(types: &[DataType]) -> Result<KeyEncoder> {
        for data_type in types {
            tag_of(data_type)?;
        }
        Ok(KeyEncoder { types: types.to_vec() })
    }

    /// The column types.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Appends the key of row `row` to `out`. For many rows of one batch, [`KeyColumns`] looks
    /// the columns' types up once.
    ///
    /// # Errors
    /// An internal error when the columns are not those that the encoder was made for.
    pub fn encode(&self, columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<()> {
        if columns.len() != self.types.len() {
            return Err(Error::internal(format!(
                "a key of {} columns is asked for with {}",
                self.types.len(),
                columns.len()
            )));
        }
        for (column, data_type) in columns.iter().zip(&self.types) {
            if tag_of(column.data_type())? != tag_of(data_type)? {
                return Err(Error::internal(format!(
                    "a key column is {}, it was announced as {data_type}",
                    column.data_type()
                )));
            }
            Column::of(column)?.encode(row, out);
        }
        Ok(())
    }
}

/// The key columns of one batch, their types resolved once.
pub struct KeyColumns<'a> {
    columns: Vec<Column<'a>>,
}

impl<'a> KeyColumns<'a> {
    /// Over these columns, all of one length.
    ///
    /// # Errors
    /// A user error when a column's type cannot be a key.
    pub fn new(columns: &'a [ArrayRef]) -> Result<KeyColumns<'a>> {
        Ok(KeyColumns { columns: columns.iter().map(Column::of).collect::<Result<_>>()? })
    }

    /// Appends the key of row `row` to `out`.
    pub fn encode(&self, row: usize, out: &mut Vec<u8>) {
        for column in &self.columns {
            column.encode(row, out);
        }
    }

    /// The hash of each of `rows` rows' keys.
    pub fn hashes(&self, rows: usize) -> UInt64Array {
        if let [column] = self.columns.as_slice()
            && let Some(hashes) = column.fixed_width_hashes(rows)
        {
            return UInt64Array::from(hashes);
        }
        let mut key = Vec::with_capacity(64);
        let hashes: Vec<u64> = (0..rows)
            .map(|row| {
                key.clear();
                self.encode(row, &mut key);
                hash_key(&key)
            })
            .collect();
        UInt64Array::from(hashes)
    }
}

/// The hash of each row's key: `xxh3_64` of its encoding.
///
/// # Errors
/// A user error when a column's type cannot be a key.
pub fn hash_keys(columns: &[ArrayRef], rows: usize) -> Result<UInt64Array> {
    Ok(KeyColumns::new(columns)?.hashes(rows))
}

/// One key column, its type resolved.
struct Column<'a> {
    tag: u8,
    values: Values<'a>,
    nulls: Option<&'a NullBuffer>,
}

enum Values<'a> {
    Null,
    Boolean(&'a BooleanArray),
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    Utf8(&'a StringArray),
    LargeUtf8(&'a LargeStringArray),
    Utf8View(&'a StringViewArray),
    Binary(&'a BinaryArray),
    LargeBinary(&'a LargeBinaryArray),
    BinaryView(&'a BinaryViewArray),
    FixedBinary(&'a FixedSizeBinaryArray),
}

fn signed(value: impl Into<i64>) -> u64 {
    value.into() as u64 ^ SIGN_BIT
}

#[inline]
fn hash_number(tag: u8, bits: u64) -> u64 {
    let mut key = [0u8; 9];
    key[0] = tag;
    key[1..].copy_from_slice(&bits.to_be_bytes());
    xxh3_64_with_seed(&key, KEY_HASH_SEED)
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef) -> Result<Column<'a>> {
        let tag = tag_of(array.data_type())?;
        let values = match array.data_type() {
            DataType::Boolean => Values::Boolean(array.as_boolean()),
            DataType::Int8 => Values::I8(array.as_primitive::<Int8Type>().values()),
            DataType::Int16 => Values::I16(array.as_primitive::<Int16Type>().values()),
            DataType::Int32 => Values::I32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Values::I64(array.as_primitive::<Int64Type>().values()),
            DataType::UInt8 => Values::U8(array.as_primitive::<UInt8Type>().values()),
            DataType::UInt16 => Values::U16(array.as_primitive::<UInt16Type>().values()),
            DataType::UInt32 => Values::U32(array.as_primitive::<UInt32Type>().values()),
            DataType::UInt64 => Values::U64(array.as_primitive::<UInt64Type>().values()),
            DataType::Date32 => Values::I32(array.as_primitive::<Date32Type>().values()),
            DataType::Date64 => Values::I64(array.as_primitive::<Date64Type>().values()),
            DataType::Timestamp(TimeUnit::Second, _) => {
                Values::I64(array.as_primitive::<TimestampSecondType>().values())
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Values::I64(array.as_primitive::<TimestampMillisecondType>().values())
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Values::I64(array.as_primitive::<TimestampMicrosecondType>().values())
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                Values::I64(array.as_primitive::<TimestampNanosecondType>().values())
            }
            DataType::Utf8 => Values::Utf8(array.as_string()),
            DataType::LargeUtf8 => Values::LargeUtf8(array.as_string()),
            DataType::Utf8View => Values::Utf8View(array.as_string_view()),
            DataType::Binary => Values::Binary(array.as_binary()),
            DataType::LargeBinary => Values::LargeBinary(array.as_binary()),
            DataType::BinaryView => Values::BinaryView(array.as_binary_view()),
            DataType::FixedSizeBinary(_) => Values::FixedBinary(array.as_fixed_size_binary()),
            _ => Values::Null,
        };
        Ok(Column { tag, values, nulls: array.nulls().filter(|nulls| nulls.null_count() > 0) })
    }

    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            out.push(TAG_NULL);
            return;
        }
        out.push(self.tag);
        let mut number = |bits: u64| out.extend_from_slice(&bits.to_be_bytes());
        match &self.values {
            Values::Null => {}
            Values::Boolean(values) => out.push(u8::from(values.value(row))),
            Values::I8(values) => number(signed(values[row])),
            Values::I16(values) => number(signed(values[row])),
            Values::I32(values) => number(signed(values[row])),
            Values::I64(values) => number(signed(values[row])),
            Values::U8(values) => number(values[row].into()),
            Values::U16(values) => number(values[row].into()),
            Values::U32(values) => number(values[row].into()),
            Values::U64(values) => number(values[row]),
            Values::Utf8(values) => bytes(values.value(row).as_bytes(), out),
            Values::LargeUtf8(values) => bytes(values.value(row).as_bytes(), out),
            Values::Utf8View(values) => bytes(values.value(row).as_bytes(), out),
            Values::Binary(values) => bytes(values.value(row), out),
            Values::LargeBinary(values) => bytes(values.value(row), out),
            Values::BinaryView(values) => bytes(values.value(row), out),
            Values::FixedBinary(values) => bytes(values.value(row), out),
        }
    }

    /// The hashes of a column of numbers that is the whole key: nine bytes a row on the stack.
    fn fixed_width_hashes(&self, rows: usize) -> Option<Vec<u64>> {
        let tag = self.tag;
        let mut hashes: Vec<u64> = match &self.values {
            Values::I8(values) => values.iter().map(|&v| hash_number(tag, signed(v))).collect(),
            Values::I16(values) => values.iter().map(|&v| hash_number(tag, signed(v))).collect(),
            Values::I32(values) => values.iter().map(|&v| hash_number(tag, signed(v))).collect(),
            Values::I64(values) => values.iter().map(|&v| hash_number(tag, signed(v))).collect(),
            Values::U8(values) => values.iter().map(|&v| hash_number(tag, v.into())).collect(),
            Values::U16(values) => values.iter().map(|&v| hash_number(tag, v.into())).collect(),
            Values::U32(values) => values.iter().map(|&v| hash_number(tag, v.into())).collect(),
            Values::U64(values) => values.iter().map(|&v| hash_number(tag, v)).collect(),
            _ => return None,
        };
        hashes.truncate(rows);
        if let Some(nulls) = self.nulls {
            let null_hash = hash_key(&[TAG_NULL]);
            for (row, hash) in hashes.iter_mut().enumerate() {
                if nulls.is_null(row) {
                    *hash = null_hash;
                }
            }
        }
        Some(hashes)
    }
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    varint::write(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
#[path = "key_encoding_tests.rs"]
mod tests;
