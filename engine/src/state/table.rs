//! One state's cache: the layers of decoded values, newest first.
//!
//! - The **active** layer is the task's; every change goes there.
//! - **Frozen** layers were active at a barrier that is not yet in the store; shared with the
//!   helper thread that writes them, so nobody changes them.
//! - **Older** layers have been written and serve as a cache; what is touched moves to the active
//!   one.
//!
//! A key may be in several layers, and the newest speaks. The rule that keeps it so: a unit may
//! leave a layer only when no older layer has one for the same key, or an outdated value would
//! come to light. So the oldest layer is emptied first, and the active one last.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use super::current_key::CurrentKey;
use super::key_group::KeyGroup;
use super::layer::Layer;
use super::op_sink::OpSink;
use super::unit::{Epoch, Unit, write_prefix};
use crate::Result;

/// Most layers kept as a cache. What nobody touched for so many barriers is cold.
const OLDER_MAX: usize = 6;

/// What a state's units are written as.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The state's id in keys.
    pub(super) state: u32,
    pub(super) max_parallelism: u32,
}

/// A layer as it was at a barrier.
pub(super) struct FrozenPart<U> {
    pub(super) layer: Layer<U>,
    pub(super) epoch: Epoch,
    place: Place,
}

/// A frozen layer of any state: what a helper thread sees of it.
pub(super) trait FrozenUnits: Send + Sync {
    /// Writes what the store does not have, in key order.
    fn write(&self, sink: &mut OpSink<'_>) -> Result<()>;
}

impl<U: Unit> FrozenUnits for FrozenPart<U> {
    fn write(&self, sink: &mut OpSink<'_>) -> Result<()> {
        write_units(&self.layer, self.layer.dirty(), self.place, self.epoch, sink)
    }
}

/// Writes the units at `positions` in the order of their keys in the store.
fn write_units<U: Unit>(
    layer: &Layer<U>,
    mut positions: Vec<u32>,
    place: Place,
    epoch: Epoch,
    sink: &mut OpSink<'_>,
) -> Result<()> {
    let group = |position: u32| KeyGroup::of_hash(layer.slot(position as usize).hash, place.max_parallelism);
    positions.sort_unstable_by(|&a, &b| {
        let (left, right) = (layer.slot(a as usize).key(), layer.slot(b as usize).key());
        (group(a), left.len(), left).cmp(&(group(b), right.len(), right))
    });
    let mut prefix = Vec::with_capacity(64);
    for position in positions {
        let slot = layer.slot(position as usize);
        prefix.clear();
        write_prefix(group(position), place.state, slot.key(), &mut prefix);
        slot.unit.write(&prefix, epoch, sink)?;
    }
    Ok(())
}

/// One state's layers.
pub(super) struct Table<U> {
    pub(super) active: Layer<U>,
    /// Oldest first.
    pub(super) frozen: VecDeque<Arc<FrozenPart<U>>>,
    /// Oldest first.
    older: VecDeque<Layer<U>>,
    resting_bytes: usize,
    place: Place,
}

/// A state's layers, whatever it holds.
pub(super) trait AnyTable: Send {
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// Memory held by all layers.
    fn bytes(&self) -> usize;
    /// Memory held by what the active layer has and the store has not.
    fn dirty_bytes(&self) -> usize;
    /// Freezes the active layer: O(1).
    fn freeze(&mut self, epoch: Epoch) -> Arc<dyn FrozenUnits>;
    /// The oldest frozen layer is in the store.
    fn thaw(&mut self);
    /// Drops values that were written at earlier barriers until `wanted` bytes are free, oldest
    /// first; answers how many are.
    fn shed(&mut self, wanted: usize) -> usize;
    /// Whether there are more old layers than it makes sense to look into.
    fn is_deep(&self) -> bool;
    /// Drops cold values of the active layer that the store has; answers the bytes.
    fn evict_clean(&mut self, wanted: usize) -> usize;
    /// Writes cold dirty values of the active layer and keeps them, or drops them with `evict`.
    fn write_cold(
        &mut self,
        wanted: usize,
        evict: bool,
        epoch: Epoch,
        sink: &mut OpSink<'_>,
    ) -> Result<usize>;
}

impl<U: Unit> Table<U> {
    pub(super) fn new(place: Place) -> Self {
        Table {
            active: Layer::default(),
            frozen: VecDeque::new(),
            older: VecDeque::new(),
            resting_bytes: 0,
            place,
        }
    }

    /// The current key's prefix in the store.
    pub(super) fn prefix(&self, key: &CurrentKey) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(key.bytes().len() + 24);
        write_prefix(key.group(), self.place.state, key.bytes(), &mut prefix);
        prefix
    }

    /// Where the key's unit is in the active layer; one in an older layer is moved there.
    #[inline]
    pub(super) fn touch(&mut self, key: &CurrentKey) -> Option<usize> {
        match self.active.find(key.hash(), key.bytes()) {
            Some(position) => Some(position),
            None if self.older.is_empty() => None,
            None if self.frozen_unit(key).is_some() => None,
            None => self.promote(key),
        }
    }

    fn promote(&mut self, key: &CurrentKey) -> Option<usize> {
        let mut newest = None;
        for layer in self.older.iter_mut().rev() {
            let before = layer.bytes();
            let unit = layer.remove(key.hash(), key.bytes());
            self.resting_bytes -= before - layer.bytes();
            newest = newest.or(unit);
        }
        let mut unit = newest?;
        unit.settle();
        Some(self.active.insert(key.hash(), key.bytes(), unit))
    }

    /// The newest frozen unit of the key.
    pub(super) fn frozen_unit<'a>(&'a self, key: &CurrentKey) -> Option<&'a U> {
        self.frozen.iter().rev().find_map(|part| {
            let position = part.layer.find(key.hash(), key.bytes())?;
            Some(&part.layer.slot(position).unit)
        })
    }

    /// The frozen units of the key with their epochs, newest first.
    pub(super) fn frozen_units<'a>(
        &'a self,
        key: &'a CurrentKey,
    ) -> impl Iterator<Item = (Epoch, &'a U)> + use<'a, U> {
        self.frozen.iter().rev().filter_map(|part| {
            let position = part.layer.find(key.hash(), key.bytes())?;
            Some((part.epoch, &part.layer.slot(position).unit))
        })
    }

    /// Removes units of the active layer; positions ascend. Answers the bytes.
    fn remove_active(&mut self, positions: &[u32]) -> usize {
        self.shed(usize::MAX);
        let before = self.active.bytes();
        // From the last: removing moves only what stands behind.
        for &position in positions.iter().rev() {
            self.active.remove_at(position as usize);
        }
        before - self.active.bytes()
    }
}

impl<U: Unit> AnyTable for Table<U> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn bytes(&self) -> usize {
        self.active.bytes() + self.resting_bytes
    }

    fn dirty_bytes(&self) -> usize {
        self.active.dirty_bytes()
    }

    fn freeze(&mut self, epoch: Epoch) -> Arc<dyn FrozenUnits> {
        let layer = std::mem::take(&mut self.active);
        self.resting_bytes += layer.bytes();
        let part = Arc::new(FrozenPart { layer, epoch, place: self.place });
        self.frozen.push_back(Arc::clone(&part));
        part
    }

    fn thaw(&mut self) {
        let Some(part) = self.frozen.pop_front() else { return };
        let bytes = part.layer.bytes();
        match Arc::try_unwrap(part) {
            Ok(part) if part.layer.len() > 0 => self.older.push_back(part.layer),
            // A helper still looks at it: a cache can do without. What is older must not outlive
            // it, or it would come to light.
            _ => {
                self.resting_bytes -= bytes;
                if bytes > 0 {
                    self.resting_bytes -= self.older.iter().map(Layer::bytes).sum::<usize>();
                    self.older.clear();
                }
            }
        }
    }

    fn shed(&mut self, wanted: usize) -> usize {
        let mut freed = 0;
        while freed < wanted {
            let Some(oldest) = self.older.front_mut() else { break };
            match oldest.pop() {
                Some(bytes) => freed += bytes,
                None => drop(self.older.pop_front()),
            }
        }
        self.resting_bytes -= freed;
        freed
    }

    fn is_deep(&self) -> bool {
        self.older.len() > OLDER_MAX
    }

    fn evict_clean(&mut self, wanted: usize) -> usize {
        let mut cold = self.active.cold(wanted, false, 1);
        cold.retain(|&position| !self.active.slot(position as usize).is_dirty());
        self.remove_active(&cold)
    }

    fn write_cold(
        &mut self,
        wanted: usize,
        evict: bool,
        epoch: Epoch,
        sink: &mut OpSink<'_>,
    ) -> Result<usize> {
        let before = if evict { self.active.bytes() } else { self.active.dirty_bytes() };
        let cold = self.active.cold(wanted, !evict, 2);
        let dirty: Vec<u32> =
            cold.iter().copied().filter(|&at| self.active.slot(at as usize).is_dirty()).collect();
        write_units(&self.active, dirty.clone(), self.place, epoch, sink)?;
        sink.flush()?;
        if evict {
            self.remove_active(&cold);
            return Ok(before - self.active.bytes());
        }
        for position in dirty {
            self.active.change(position as usize, U::settle);
        }
        Ok(before.saturating_sub(self.active.dirty_bytes()))
    }
}
