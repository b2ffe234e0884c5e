//! The key that a keyed operator is at.

use super::key_group::{KeyGroup, KeyGroupRange};
use crate::{Error, Result};

/// The key whose state is meant; its buffer is reused from key to key.
#[derive(Default)]
pub(super) struct CurrentKey {
    hash: u64,
    group: u16,
    bytes: Vec<u8>,
    is_set: bool,
}

impl CurrentKey {
    #[inline]
    pub(super) fn set(&mut self, hash: u64, key: &[u8], max_parallelism: u32) {
        self.hash = hash;
        self.group = KeyGroup::of_hash(hash, max_parallelism).0;
        self.bytes.clear();
        self.bytes.extend_from_slice(key);
        self.is_set = true;
    }

    /// # Errors
    /// An internal error when no key was set, or one that another subtask owns.
    pub(super) fn check(&self, owned: KeyGroupRange) -> Result<()> {
        if !self.is_set {
            return Err(Error::internal("keyed state is used before a key was set"));
        }
        if !owned.contains(self.group()) {
            return Err(Error::internal(format!(
                "a key of key group {} came to the instance that owns {}..{}",
                self.group, owned.first, owned.end
            )));
        }
        Ok(())
    }

    #[inline]
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn group(&self) -> KeyGroup {
        KeyGroup(self.group)
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
