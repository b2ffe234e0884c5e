//! Gathers writes and hands them to a store in shares of bounded size.

use super::store::{Family, KvOp, KvSnapshotter, KvStore};
use crate::Result;

/// Largest share: a write batch that fits into a processor's cache and holds a memtable's lock
/// for a few milliseconds at most.
const SHARE_BYTES_MAX: usize = 256 * 1024;
const SHARE_OPS_MAX: usize = 4096;

/// Either end of a store that may be written to: the task's own, or the snapshot helper's.
pub(super) enum Target<'a> {
    Store(&'a mut dyn KvStore),
    Snapshotter(&'a mut dyn KvSnapshotter),
}

/// Writes on their way to a store. What was put is there after [`OpSink::flush`].
pub(super) struct OpSink<'a> {
    target: Target<'a>,
    ops: Vec<KvOp>,
    bytes: usize,
}

impl<'a> OpSink<'a> {
    pub(super) fn new(target: Target<'a>) -> Self {
        OpSink { target, ops: Vec::new(), bytes: 0 }
    }

    pub(super) fn push(&mut self, op: KvOp) -> Result<()> {
        self.bytes += match &op {
            KvOp::Put(_, key, value) => key.len() + value.len(),
            KvOp::Delete(_, key) => key.len(),
        };
        self.ops.push(op);
        if self.bytes >= SHARE_BYTES_MAX || self.ops.len() >= SHARE_OPS_MAX {
            self.flush()?;
        }
        Ok(())
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        self.push(KvOp::Put(Family::State, key, value))
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) -> Result<()> {
        self.push(KvOp::Delete(Family::State, key))
    }

    /// Deletes every key that begins with `prefix` and is in the store, in bounded memory.
    pub(super) fn delete_prefix(&mut self, prefix: &[u8]) -> Result<()> {
        let end = prefix_end(prefix);
        let mut from = prefix.to_vec();
        loop {
            let mut keys: Vec<Vec<u8>> = Vec::new();
            let mut visit = |key: &[u8], _: &[u8]| {
                keys.push(key.to_vec());
                Ok(keys.len() < SHARE_OPS_MAX)
            };
            match &self.target {
                Target::Store(store) => store.scan(Family::State, &from..&end, &mut visit)?,
                Target::Snapshotter(store) => store.scan(Family::State, &from..&end, &mut visit)?,
            }
            let more = keys.len() == SHARE_OPS_MAX;
            if let Some(last) = keys.last() {
                from.clone_from(last);
                from.push(0);
            }
            for key in keys {
                self.delete(key)?;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Writes what is left.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.ops.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let mut ops = self.ops.drain(..);
        match &mut self.target {
            Target::Store(store) => store.write(&mut ops),
            Target::Snapshotter(store) => store.write(&mut ops),
        }
    }
}

/// The first key after all that begin with `prefix`. A prefix here begins with a key group, whose
/// first byte is never `ff`, so there is always one.
pub(super) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while end.last() == Some(&0xff) {
        end.pop();
    }
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
