//! A table of decoded values by key: what the cache in front of the store is made of.
//!
//! A layer belongs to one state. The task owns the newest one; a barrier freezes it as it is, and
//! once it is in the store it serves as a cache of clean values (see `table`). Values are kept in
//! a dense array in the order of their arrival, and the index holds positions in it, so growing
//! moves positions, not values. Nothing here knows the store.

use hashbrown::HashTable;

use super::key_bytes::KeyBytes;
use super::unit::Unit;

/// What one key has in one state.
pub(super) struct Slot<U> {
    pub(super) unit: U,
    /// The pinned hash of the key.
    pub(super) hash: u64,
    key: KeyBytes,
    bytes: usize,
    dirty: bool,
    touched: bool,
}

impl<U> Slot<U> {
    pub(super) fn key(&self) -> &[u8] {
        self.key.as_slice()
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }
}

/// The values of one state that were touched since the last barrier.
pub(super) struct Layer<U> {
    index: HashTable<u32>,
    slots: Vec<Slot<U>>,
    hand: usize,
    bytes: usize,
    dirty_bytes: usize,
}

impl<U> Default for Layer<U> {
    fn default() -> Self {
        Layer { index: HashTable::new(), slots: Vec::new(), hand: 0, bytes: 0, dirty_bytes: 0 }
    }
}

/// The key hash chose the key group, so its low bits are the same for most keys of an instance;
/// a table needs bits that are not.
#[inline]
fn remix(hash: u64) -> u64 {
    let product = u128::from(hash) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
    (product >> 64) as u64 ^ product as u64
}

impl<U: Unit> Layer<U> {
    /// Memory held for one more key, beside the unit's own.
    const SLOT_BYTES: usize = size_of::<Slot<U>>() + 8 - size_of::<U>();

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty_bytes
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.index
            .find(remix(hash), |&position| {
                let slot = &self.slots[position as usize];
                slot.hash == hash && slot.key.as_slice() == key
            })
            .map(|&position| position as usize)
    }

    pub(super) fn slot(&self, position: usize) -> &Slot<U> {
        &self.slots[position]
    }

    /// The unit, to read; it counts as touched.
    #[inline]
    pub(super) fn read(&mut self, position: usize) -> &U {
        let slot = &mut self.slots[position];
        slot.touched = true;
        &slot.unit
    }

    /// Changes a unit and keeps the accounts.
    #[inline]
    pub(super) fn change<R>(&mut self, position: usize, change: impl FnOnce(&mut U) -> R) -> R {
        let slot = &mut self.slots[position];
        slot.touched = true;
        let result = change(&mut slot.unit);
        let bytes = Self::SLOT_BYTES + slot.key.heap_bytes() + slot.unit.bytes();
        let dirty = slot.unit.is_dirty();
        self.bytes = self.bytes - slot.bytes + bytes;
        self.dirty_bytes -= if slot.dirty { slot.bytes } else { 0 };
        self.dirty_bytes += if dirty { bytes } else { 0 };
        slot.bytes = bytes;
        slot.dirty = dirty;
        result
    }

    /// Adds a unit for a key that is not there.
    pub(super) fn insert(&mut self, hash: u64, key: &[u8], unit: U) -> usize {
        let position = self.slots.len();
        self.slots.push(Slot { unit, hash, key: KeyBytes::new(key), bytes: 0, dirty: false, touched: true });
        let slots = &self.slots;
        self.index.insert_unique(remix(hash), position as u32, |&at| remix(slots[at as usize].hash));
        self.change(position, |_| ());
        position
    }

    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<U> {
        let position = self.find(hash, key)?;
        Some(self.remove_at(position))
    }

    /// Removes the newest unit; answers the bytes that it held.
    pub(super) fn pop(&mut self) -> Option<usize> {
        let position = self.slots.len().checked_sub(1)?;
        let before = self.bytes;
        drop(self.remove_at(position));
        Some(before - self.bytes)
    }

    pub(super) fn remove_at(&mut self, position: usize) -> U {
        self.unindex(position, None);
        let last = self.slots.len() - 1;
        if position != last {
            self.unindex(last, Some(position));
        }
        let slot = self.slots.swap_remove(position);
        self.bytes -= slot.bytes;
        self.dirty_bytes -= if slot.dirty { slot.bytes } else { 0 };
        slot.unit
    }

    /// Takes the index entry of `position` out, or points it to `moved`.
    fn unindex(&mut self, position: usize, moved: Option<usize>) {
        let hash = remix(self.slots[position].hash);
        if let Ok(mut entry) = self.index.find_entry(hash, |&at| at as usize == position) {
            match moved {
                Some(moved) => *entry.get_mut() = moved as u32,
                None => drop(entry.remove()),
            }
        }
    }

    /// Positions of units that the second-chance hand passes and that were not touched since it
    /// came last, until `wanted` bytes are found or it has gone round. `dirty`: only dirty ones.
    pub(super) fn cold(&mut self, wanted: usize, dirty: bool, rounds: usize) -> Vec<u32> {
        let mut found = Vec::new();
        let mut bytes = 0;
        for _ in 0..self.slots.len() * rounds {
            if bytes >= wanted {
                break;
            }
            self.hand = if self.hand >= self.slots.len() { 0 } else { self.hand };
            let slot = &mut self.slots[self.hand];
            if !dirty || slot.dirty {
                if !slot.touched {
                    bytes += slot.bytes;
                    found.push(self.hand as u32);
                }
                slot.touched = false;
            }
            self.hand += 1;
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Positions of all dirty units.
    pub(super) fn dirty(&self) -> Vec<u32> {
        let positions = 0..self.slots.len() as u32;
        positions.filter(|&position| self.slots[position as usize].dirty).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::value::ValueUnit;

    proptest! {
        #[test]
        fn finds_what_is_there_and_nothing_else(ops in proptest::collection::vec((0u8..4, 0u64..20), 1..200)) {
            let mut layer = Layer::<ValueUnit<u64>>::default();
            let mut model = std::collections::BTreeMap::new();
            for (step, (op, key)) in ops.into_iter().enumerate() {
                let bytes = key.to_be_bytes();
                // Few hashes, so that they clash.
                let hash = key % 5 * 128;
                match op {
                    0 => prop_assert_eq!(layer.remove(hash, &bytes).is_some(), model.remove(&key).is_some()),
                    1 => { layer.pop().is_some().then(|| {
                        model.retain(|key: &u64, _| layer.find(key % 5 * 128, &key.to_be_bytes()).is_some());
                    }); }
                    _ => {
                        let at = match layer.find(hash, &bytes) {
                            Some(at) => at,
                            None => layer.insert(hash, &bytes, ValueUnit::absent()),
                        };
                        layer.change(at, |unit| unit.set(step as u64));
                        model.insert(key, step as u64);
                    }
                }
                prop_assert_eq!(layer.len(), model.len());
                for (key, value) in &model {
                    let at = layer.find(key % 5 * 128, &key.to_be_bytes()).unwrap();
                    prop_assert_eq!(layer.slot(at).unit.get(), Some(value));
                }
                let dirty: usize = layer.dirty().iter().map(|&at| layer.slots[at as usize].bytes).sum();
                prop_assert_eq!(layer.dirty_bytes(), dirty);
                prop_assert_eq!(layer.bytes(), layer.slots.iter().map(|slot| slot.bytes).sum::<usize>());
            }
        }
    }
}
