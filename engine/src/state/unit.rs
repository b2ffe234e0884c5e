//! What one key has in one state, as the cache keeps it: a value, a part of a map, a part of a
//! list; and the keys under which it is written.
//!
//! The rule: a unit's changes may be written twice, under the same epoch, with the same outcome;
//! a flush that broke off halfway is simply done again.

use super::key_group::KeyGroup;
use super::op_sink::OpSink;
use super::varint;
use crate::Result;

/// Counts the layers of a state's life: everything that is written together has one epoch, and
/// what was known later has a higher one. Kept in the snapshot.
pub(super) type Epoch = u64;

/// What one key has in one state.
pub(super) trait Unit: Send + Sync + Sized + 'static {
    /// Memory held, the unit itself included.
    fn bytes(&self) -> usize;

    /// Whether it holds what the store does not.
    fn is_dirty(&self) -> bool;

    /// Writes what the store does not have. `prefix`: see [`write_prefix`].
    fn write(&self, prefix: &[u8], epoch: Epoch, sink: &mut OpSink<'_>) -> Result<()>;

    /// What was dirty has been written.
    fn settle(&mut self);
}

/// The prefix of everything that a key has in a state:
/// `key group (u16 BE) | state id (u32 BE) | key length (LEB128) | key`.
/// No prefix begins with another one.
pub(super) fn write_prefix(group: KeyGroup, state: u32, key: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&group.0.to_be_bytes());
    out.extend_from_slice(&state.to_be_bytes());
    varint::write(key.len() as u64, out);
    out.extend_from_slice(key);
}
