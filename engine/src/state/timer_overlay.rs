//! Timers that were set or deleted and that the store does not know of yet, in the order in which
//! they are written.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::op_sink::OpSink;
use super::store::{Family, KvOp, KvStore};
use crate::Result;

/// What is to be done with a timer in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// To be written. `fresh`: the store and what is frozen have it not, so deleting it again
    /// leaves no trace.
    Put {
        /// See above.
        fresh: bool,
    },
    /// To be deleted.
    Delete,
}

/// Changes by stored key.
#[derive(Default)]
pub(super) struct TimerOverlay {
    changes: BTreeMap<Vec<u8>, Change>,
    bytes: usize,
}

fn entry_bytes(key: &[u8]) -> usize {
    key.len() + 48
}

impl TimerOverlay {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Change> {
        self.changes.get(key).copied()
    }

    pub(super) fn insert(&mut self, key: Vec<u8>, change: Change) {
        let bytes = entry_bytes(&key);
        if self.changes.insert(key, change).is_none() {
            self.bytes += bytes;
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.changes.remove(key).is_some() {
            self.bytes -= entry_bytes(key);
        }
    }

    /// Writes all changes.
    pub(super) fn write(&self, sink: &mut OpSink<'_>) -> Result<()> {
        self.changes.iter().try_for_each(|(key, change)| sink.push(op(key.clone(), *change)))
    }

    /// Writes about `wanted` bytes of changes, the first ones, and forgets them.
    pub(super) fn write_some(&mut self, wanted: usize, sink: &mut OpSink<'_>) -> Result<()> {
        let mut written = 0;
        let mut last = None;
        for (key, change) in &self.changes {
            sink.push(op(key.clone(), *change))?;
            written += entry_bytes(key);
            if written >= wanted {
                last = Some(key.clone());
                break;
            }
        }
        sink.flush()?;
        match last {
            Some(mut last) => {
                last.push(0);
                self.changes = self.changes.split_off(&last);
                self.bytes -= written;
            }
            None => *self = TimerOverlay::default(),
        }
        Ok(())
    }
}

fn op(key: Vec<u8>, change: Change) -> KvOp {
    match change {
        Change::Put { .. } => KvOp::Put(Family::Timers, key, Vec::new()),
        Change::Delete => KvOp::Delete(Family::Timers, key),
    }
}

/// The store and what lies above it, newest last.
pub(super) struct LayeredTimers<'a> {
    pub(super) store: &'a dyn KvStore,
    pub(super) frozen: Vec<&'a TimerOverlay>,
    pub(super) active: &'a TimerOverlay,
}

impl LayeredTimers<'_> {
    /// Visits the timers in `from..to` as all layers together have them, in order, until `visit`
    /// answers `false`.
    pub(super) fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> Result<bool>,
    ) -> Result<()> {
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        let mut layers: Vec<_> = std::iter::once(self.active)
            .chain(self.frozen.iter().rev().copied())
            .map(|overlay| overlay.changes.range::<[u8], _>(bounds).peekable())
            .filter_map(|mut layer| layer.peek().is_some().then_some(layer))
            .collect();
        // The first change at or before `limit`, of the newest layer that has one.
        let mut next_change = |limit: Option<&[u8]>| {
            let first = layers.iter_mut().filter_map(|layer| layer.peek().map(|(key, _)| *key)).min()?;
            if limit.is_some_and(|limit| first.as_slice() > limit) {
                return None;
            }
            let mut newest = None;
            for layer in &mut layers {
                if let Some((_, change)) = layer.next_if(|(key, _)| *key == first) {
                    newest = newest.or(Some((first, *change)));
                }
            }
            newest
        };
        let mut more = true;
        self.store.scan(Family::Timers, from..to, &mut |stored, _| {
            let mut spoken = false;
            while more && let Some((key, change)) = next_change(Some(stored)) {
                spoken = key == stored;
                if change != Change::Delete {
                    more = visit(key)?;
                }
            }
            if more && !spoken {
                more = visit(stored)?;
            }
            Ok(more)
        })?;
        while more && let Some((key, change)) = next_change(None) {
            if change != Change::Delete {
                more = visit(key)?;
            }
        }
        Ok(())
    }
}
