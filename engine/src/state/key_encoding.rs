//! The injective, type-tagged encoding of keys and their hash. Pinned: snapshots depend on it.

use arrow::array::{ArrayRef, UInt64Array};

use crate::{Error, Result};

/// The hash of each row's key: `xxh3_64` of its encoding.
///
/// # Errors
/// A user error when a column's type cannot be a key.
pub fn hash_keys(columns: &[ArrayRef], rows: usize) -> Result<UInt64Array> {
    let _ = (columns, rows);
    Err(Error::internal("key encoding is not there yet"))
}
