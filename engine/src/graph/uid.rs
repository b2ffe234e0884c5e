//! An operator's stable name.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Longest uid, in bytes: it becomes part of paths.
const UID_BYTES_MAX: usize = 128;

/// An operator's stable name, under which its state is found again. Letters, digits, `-`, `_`,
/// `.`; 1 to 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(Arc<str>);

impl Uid {
    /// Checks a name.
    ///
    /// # Errors
    /// A user error that shows the name.
    pub fn new(name: &str) -> Result<Uid> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty()
            || name.len() > UID_BYTES_MAX
            || !name.chars().all(allowed)
            || name.starts_with('.')
        {
            return Err(Error::user(format!(
                "uid {name:?} must be 1 to {UID_BYTES_MAX} letters, digits, '-', '_' or '.', not beginning with '.'"
            )));
        }
        Ok(Uid(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
