//! What the cache holds of one key's map: entries that were touched, and whether these are all.

use std::collections::BTreeMap;

use super::map_key::MapKey;
use super::op_sink::OpSink;
use super::state_size::StateValue;
use super::unit::{Epoch, Unit};
use super::value::ValueUnit;
use crate::Result;

/// What an entry of an ordered map costs beside key and value.
const ENTRY_BYTES: usize = 16;

/// The known part of a map.
#[derive(Clone)]
pub(super) struct MapUnit<K, V> {
    entries: BTreeMap<K, ValueUnit<V>>,
    /// Whether `entries` are all there are: what is not in them is nowhere.
    complete: bool,
    /// The store's entries are to be removed before these are written; then it is complete.
    cleared: bool,
    entry_bytes: usize,
    dirty_entries: usize,
}

impl<K: MapKey, V: StateValue> MapUnit<K, V> {
    /// Nothing is known.
    pub(super) fn unknown() -> Self {
        MapUnit {
            entries: BTreeMap::new(),
            complete: false,
            cleared: false,
            entry_bytes: 0,
            dirty_entries: 0,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// What is known of an entry: `None` when nothing, `Some(None)` when that it is not there.
    pub(super) fn known(&self, key: &K) -> Option<Option<&V>> {
        match self.entries.get(key) {
            Some(entry) => Some(entry.get()),
            None => self.complete.then_some(None),
        }
    }

    /// The known entries, in key order; `None` for one that is known not to be there.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&K, Option<&V>)> {
        self.entries.iter().map(|(key, entry)| (key, entry.get()))
    }

    /// Remembers what the store has.
    pub(super) fn learn(&mut self, key: K, value: Option<V>) {
        if !self.entries.contains_key(&key) {
            self.entry_bytes += entry_bytes(&key, value.as_ref());
            self.entries.insert(key, ValueUnit::loaded(value));
        }
    }

    /// Remembers that the store has no other entries than those that were learnt.
    pub(super) fn learn_all(&mut self) {
        self.complete = true;
        self.entries.retain(|key, entry| {
            let keep = entry.get().is_some() || entry.is_dirty();
            self.entry_bytes -= if keep { 0 } else { entry_bytes(key, entry.get()) };
            keep
        });
    }

    pub(super) fn put(&mut self, key: K, value: V) {
        self.change(key, |entry| entry.set(value));
    }

    pub(super) fn remove(&mut self, key: &K) {
        self.change(key.clone(), ValueUnit::clear);
    }

    fn change(&mut self, key: K, change: impl FnOnce(&mut ValueUnit<V>)) {
        let complete = self.complete;
        let mut entry = match self.entries.remove(&key) {
            Some(entry) => {
                self.entry_bytes -= entry_bytes(&key, entry.get());
                self.dirty_entries -= usize::from(entry.is_dirty());
                entry
            }
            None if complete => ValueUnit::absent(),
            None => ValueUnit::unknown(),
        };
        change(&mut entry);
        if complete && entry.get().is_none() && !entry.is_dirty() {
            return;
        }
        self.entry_bytes += entry_bytes(&key, entry.get());
        self.dirty_entries += usize::from(entry.is_dirty());
        self.entries.insert(key, entry);
    }

    pub(super) fn clear(&mut self) {
        if !self.complete {
            *self = MapUnit { complete: true, cleared: true, ..Self::unknown() };
            return;
        }
        let stored = |(key, mut entry): (K, ValueUnit<V>)| {
            entry.clear();
            entry.is_in_store().then_some((key, entry))
        };
        self.entries = std::mem::take(&mut self.entries).into_iter().filter_map(stored).collect();
        self.dirty_entries = self.entries.len();
        self.entry_bytes = self.entries.iter().map(|(key, entry)| entry_bytes(key, entry.get())).sum();
    }
}

fn entry_bytes<K: MapKey, V: StateValue>(key: &K, value: Option<&V>) -> usize {
    let heap = value.map_or(0, |value| value.state_size().saturating_sub(size_of::<V>()));
    ENTRY_BYTES + key.state_size() + size_of::<ValueUnit<V>>() + heap
}

impl<K: MapKey, V: StateValue> Unit for MapUnit<K, V> {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.entry_bytes
    }

    fn is_dirty(&self) -> bool {
        self.cleared || self.dirty_entries > 0
    }

    fn write(&self, prefix: &[u8], _epoch: Epoch, sink: &mut OpSink<'_>) -> Result<()> {
        if self.cleared {
            sink.delete_prefix(prefix)?;
        }
        for (key, entry) in self.entries.iter().filter(|(_, entry)| entry.is_dirty()) {
            let mut full = prefix.to_vec();
            key.encode_key(&mut full);
            entry.write_to(full, sink)?;
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.cleared = false;
        self.dirty_entries = 0;
        self.entries.values_mut().for_each(ValueUnit::settle);
        if self.complete {
            self.learn_all();
        }
    }
}
