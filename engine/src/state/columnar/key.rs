//! Keys between columns, words and bytes: a single column of a 64- or 32-bit type is a key of one
//! word, anything else is a key of bytes, in the pinned encoding. The store sees the encoding only.

use std::borrow::Cow;

use arrow::array::types::{Int32Type, Int64Type, TimestampMicrosecondType, UInt32Type, UInt64Type};
use arrow::array::{
    Array, ArrayRef, Int32Array, Int64Array, TimestampMicrosecondArray, UInt32Array, UInt64Array,
    cast::AsArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, TimeUnit};

use super::arena::Arena;
use super::index::tag_of;
use super::layout::{HEADER, KEY, NAMESPACE, NULL_KEY};
use crate::state::KeyGroup;
use crate::state::key_encoding::{KeyColumns, KeyEncoder, decode_keys, hash_key};
use crate::time::Micros;
use crate::{Error, Result};

/// The state id of the one state that a columnar operator has.
const STATE_ID: u8 = 0;
/// Order-preserving bytes of a signed number: its sign bit flipped, big-endian.
const SIGN: u64 = 1 << 63;

/// Translates keys of one set of types.
#[derive(Clone)]
pub(super) struct KeyCodec {
    types: Vec<DataType>,
    is_word: bool,
}

/// Encoded keys, one after the other.
#[derive(Default)]
pub(super) struct EncodedKeys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl EncodedKeys {
    #[inline]
    pub(super) fn get(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }
}

impl KeyCodec {
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        let is_word = matches!(
            types,
            [DataType::UInt64
                | DataType::Int64
                | DataType::UInt32
                | DataType::Int32
                | DataType::Timestamp(TimeUnit::Microsecond, _)]
        );
        // Refuses types that cannot be keys.
        KeyEncoder::new(types)?;
        Ok(KeyCodec { types: types.to_vec(), is_word })
    }

    /// The types of the key's columns.
    pub(super) fn types(&self) -> &[DataType] {
        &self.types
    }

    pub(super) fn is_word(&self) -> bool {
        self.is_word
    }

    /// The words of a key column; what is under a null is anything.
    pub(super) fn words<'a>(&self, column: &'a ArrayRef) -> Result<Cow<'a, [u64]>> {
        let words = match column.data_type() {
            DataType::UInt64 => Cow::Borrowed(column.as_primitive::<UInt64Type>().values().as_ref()),
            DataType::Int64 => {
                Cow::Borrowed(column.as_primitive::<Int64Type>().values().inner().typed_data())
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let values = column.as_primitive::<TimestampMicrosecondType>().values();
                Cow::Borrowed(values.inner().typed_data())
            }
            DataType::UInt32 => {
                column.as_primitive::<UInt32Type>().values().iter().map(|&v| u64::from(v)).collect()
            }
            DataType::Int32 => {
                column.as_primitive::<Int32Type>().values().iter().map(|&v| i64::from(v) as u64).collect()
            }
            other => return Err(Error::internal(format!("a key of type {other} is not a word"))),
        };
        Ok(words)
    }

    /// The column that these words came from.
    pub(super) fn column_of_words(&self, words: Vec<u64>, valid: Vec<bool>) -> Result<ArrayRef> {
        let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
        let signed = |words: Vec<u64>| words.into_iter().map(|word| word as i64).collect::<Vec<_>>();
        Ok(match &self.types[0] {
            DataType::UInt64 => std::sync::Arc::new(UInt64Array::new(words.into(), nulls)),
            DataType::Int64 => std::sync::Arc::new(Int64Array::new(signed(words).into(), nulls)),
            DataType::Timestamp(TimeUnit::Microsecond, zone) => std::sync::Arc::new(
                TimestampMicrosecondArray::new(signed(words).into(), nulls).with_timezone_opt(zone.clone()),
            ),
            DataType::UInt32 => {
                let narrow: Vec<u32> = words.into_iter().map(|word| word as u32).collect();
                std::sync::Arc::new(UInt32Array::new(narrow.into(), nulls))
            }
            DataType::Int32 => {
                let narrow: Vec<i32> = words.into_iter().map(|word| word as i32).collect();
                std::sync::Arc::new(Int32Array::new(narrow.into(), nulls))
            }
            other => return Err(Error::internal(format!("a key of type {other} is not a word"))),
        })
    }

    /// Encodes the keys of a batch.
    pub(super) fn encode_columns(
        &self,
        columns: &[ArrayRef],
        rows: usize,
        out: &mut EncodedKeys,
    ) -> Result<()> {
        out.clear();
        let columns = KeyColumns::new(columns)?;
        for row in 0..rows {
            columns.encode(row, &mut out.bytes);
            out.ends.push(out.bytes.len());
        }
        Ok(())
    }

    /// The encoded keys of rows of the table.
    pub(super) fn encode_rows<'a>(
        &self,
        rows: impl Iterator<Item = &'a [u64]>,
        arena: &Arena,
        out: &mut EncodedKeys,
    ) -> Result<()> {
        if self.is_word {
            let column = self.column_of_rows(rows)?;
            let rows = column.len();
            return self.encode_columns(&[column], rows, out);
        }
        out.clear();
        for row in rows {
            out.push(arena.get(row[KEY]));
        }
        Ok(())
    }

    /// The key columns of rows of the table.
    pub(super) fn columns_of_rows<'a>(
        &self,
        rows: impl Iterator<Item = &'a [u64]>,
        arena: &Arena,
    ) -> Result<Vec<ArrayRef>> {
        if self.is_word {
            return Ok(vec![self.column_of_rows(rows)?]);
        }
        let keys: Vec<&[u8]> = rows.map(|row| arena.get(row[KEY])).collect();
        decode_keys(&keys, &self.types)
    }

    fn column_of_rows<'a>(&self, rows: impl Iterator<Item = &'a [u64]>) -> Result<ArrayRef> {
        let (words, valid) = rows.map(|row| (row[KEY], row[HEADER] & NULL_KEY == 0)).unzip();
        self.column_of_words(words, valid)
    }

    /// The columns of encoded keys.
    pub(super) fn decode(&self, keys: &[&[u8]]) -> Result<Vec<ArrayRef>> {
        decode_keys(keys, &self.types)
    }
}

/// Builds the store's keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoreKeys {
    pub(super) max_parallelism: u32,
    pub(super) namespaced: bool,
}

impl StoreKeys {
    fn group(self, key: &[u8]) -> [u8; 2] {
        KeyGroup::of_hash(hash_key(key), self.max_parallelism).0.to_be_bytes()
    }

    /// `key group | state id | key | namespace`.
    pub(super) fn state(self, key: &[u8], namespace: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.group(key));
        out.push(STATE_ID);
        self.key_and_namespace(key, namespace, out);
    }

    /// `key group | time | key | namespace`.
    pub(super) fn timer(self, time: Micros, key: &[u8], namespace: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.group(key));
        out.extend_from_slice(&sortable(time));
        self.key_and_namespace(key, namespace, out);
    }

    fn key_and_namespace(self, key: &[u8], namespace: i64, out: &mut Vec<u8>) {
        out.extend_from_slice(key);
        if self.namespaced {
            out.extend_from_slice(&sortable(namespace));
        }
    }

    /// The smallest timer key of a group at a time.
    pub(super) fn timer_start(group: u32, time: Micros) -> Vec<u8> {
        let mut start = (group as u16).to_be_bytes().to_vec();
        start.extend_from_slice(&sortable(time));
        start
    }

    /// Time, key and namespace of a timer's key; `None` when it is none.
    pub(super) fn split_timer(timer: &[u8]) -> Option<(Micros, &[u8], i64)> {
        let (_, rest) = timer.split_at_checked(2)?;
        let (time, rest) = rest.split_first_chunk::<8>()?;
        let (key, namespace) = rest.split_last_chunk::<8>()?;
        Some((unsortable(*time), key, unsortable(*namespace)))
    }
}

fn sortable(time: i64) -> [u8; 8] {
    (time as u64 ^ SIGN).to_be_bytes()
}

fn unsortable(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ SIGN) as i64
}

/// The keys of a batch, as the look-up sees them.
pub(super) trait Keys {
    fn tag(&self, row: usize) -> u32;
    fn matches(&self, row: usize, words: &[u64], arena: &Arena) -> bool;
    /// Writes the key into a blank row; answers flags for its header.
    fn write(&self, row: usize, words: &mut [u64], arena: &mut Arena) -> u64;
}

pub(super) struct WordKeys<'a> {
    pub(super) hashes: &'a [u64],
    pub(super) words: &'a [u64],
    pub(super) nulls: Option<&'a NullBuffer>,
}

impl WordKeys<'_> {
    #[inline]
    fn word(&self, row: usize) -> (u64, u64) {
        match self.nulls {
            Some(nulls) if nulls.is_null(row) => (0, NULL_KEY),
            _ => (self.words[row], 0),
        }
    }
}

impl Keys for WordKeys<'_> {
    #[inline]
    fn tag(&self, row: usize) -> u32 {
        tag_of(self.hashes[row], 0)
    }

    #[inline]
    fn matches(&self, row: usize, words: &[u64], _arena: &Arena) -> bool {
        let (word, null) = self.word(row);
        words[KEY] == word && words[HEADER] & NULL_KEY == null
    }

    #[inline]
    fn write(&self, row: usize, words: &mut [u64], _arena: &mut Arena) -> u64 {
        let (word, null) = self.word(row);
        words[KEY] = word;
        null
    }
}

pub(super) struct ByteKeys<'a> {
    pub(super) hashes: &'a [u64],
    pub(super) keys: &'a EncodedKeys,
}

impl Keys for ByteKeys<'_> {
    #[inline]
    fn tag(&self, row: usize) -> u32 {
        tag_of(self.hashes[row], 0)
    }

    #[inline]
    fn matches(&self, row: usize, words: &[u64], arena: &Arena) -> bool {
        arena.get(words[KEY]) == self.keys.get(row)
    }

    fn write(&self, row: usize, words: &mut [u64], arena: &mut Arena) -> u64 {
        words[KEY] = arena.insert(self.keys.get(row));
        0
    }
}

/// Keys with one namespace each.
pub(super) struct Namespaced<'a, K> {
    pub(super) keys: K,
    pub(super) hashes: &'a [u64],
    pub(super) namespaces: &'a [i64],
}

impl<K: Keys> Keys for Namespaced<'_, K> {
    #[inline]
    fn tag(&self, row: usize) -> u32 {
        tag_of(self.hashes[row], self.namespaces[row] as u64)
    }

    #[inline]
    fn matches(&self, row: usize, words: &[u64], arena: &Arena) -> bool {
        words[NAMESPACE] == self.namespaces[row] as u64 && self.keys.matches(row, words, arena)
    }

    #[inline]
    fn write(&self, row: usize, words: &mut [u64], arena: &mut Arena) -> u64 {
        words[NAMESPACE] = self.namespaces[row] as u64;
        self.keys.write(row, words, arena)
    }
}
