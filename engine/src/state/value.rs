//! Value state: at most one value for each key.

use std::marker::PhantomData;

use super::codec::Codec;
use super::keyed::KeyedState;
use super::op_sink::OpSink;
use super::state_size::StateValue;
use super::store::Family;
use super::unit::{Epoch, Unit};
use crate::Result;

/// A value that may be there, and whether the store knows.
#[derive(Clone)]
pub(super) struct ValueUnit<T> {
    value: Option<T>,
    dirty: bool,
    in_store: bool,
}

impl<T> ValueUnit<T> {
    /// Known not to be in the store.
    pub(super) fn absent() -> Self {
        ValueUnit { value: None, dirty: false, in_store: false }
    }

    /// Perhaps in the store; to be overwritten at once.
    pub(super) fn unknown() -> Self {
        ValueUnit { value: None, dirty: false, in_store: true }
    }

    /// As the store has it.
    pub(super) fn loaded(value: Option<T>) -> Self {
        ValueUnit { in_store: value.is_some(), dirty: false, value }
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    pub(super) fn set(&mut self, value: T) {
        self.value = Some(value);
        self.dirty = true;
    }

    pub(super) fn clear(&mut self) {
        self.value = None;
        self.dirty = self.in_store;
    }

    pub(super) fn modify<R>(&mut self, change: impl FnOnce(&mut Option<T>) -> R) -> R {
        let result = change(&mut self.value);
        self.dirty = self.value.is_some() || self.in_store;
        result
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub(super) fn is_in_store(&self) -> bool {
        self.in_store
    }

    pub(super) fn settle(&mut self) {
        if self.dirty {
            self.in_store = self.value.is_some();
            self.dirty = false;
        }
    }
}

impl<T: StateValue> ValueUnit<T> {
    pub(super) fn write_to(&self, key: Vec<u8>, sink: &mut OpSink<'_>) -> Result<()> {
        match &self.value {
            _ if !self.dirty => Ok(()),
            Some(value) => sink.put(key, Codec::to_vec(value)?),
            None => sink.delete(key),
        }
    }
}

impl<T: StateValue> Unit for ValueUnit<T> {
    fn bytes(&self) -> usize {
        let heap = self.value.as_ref().map_or(0, |value| value.state_size().saturating_sub(size_of::<T>()));
        size_of::<Self>() + heap
    }

    fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn write(&self, prefix: &[u8], _epoch: Epoch, sink: &mut OpSink<'_>) -> Result<()> {
        self.write_to(prefix.to_vec(), sink)
    }

    fn settle(&mut self) {
        ValueUnit::settle(self);
    }
}

/// A handle to a value state, made by [`KeyedState::value`]. Cheap to copy; works on the current
/// key of the state that made it.
pub struct ValueState<T> {
    index: usize,
    value: PhantomData<fn() -> T>,
}

/// A handle that is not registered yet: every use fails with a clear error. For structs that are
/// made before their states can be.
impl<T> Default for ValueState<T> {
    fn default() -> Self {
        ValueState { index: usize::MAX, value: PhantomData }
    }
}

impl<T> Clone for ValueState<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ValueState<T> {}

impl<T> std::fmt::Debug for ValueState<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ValueState({})", self.index)
    }
}

impl<T: StateValue> ValueState<T> {
    pub(super) fn new(index: usize) -> Self {
        ValueState { index, value: PhantomData }
    }

    /// The current key's value. A value that was touched before costs one look-up.
    ///
    /// # Errors
    /// An external error of the store; a user error when the stored value is not a `T`.
    pub fn get<'k>(&self, keyed: &'k mut KeyedState) -> Result<Option<&'k T>> {
        let (table, core) = keyed.split::<ValueUnit<T>>(self.index)?;
        let position = match table.touch(&core.current) {
            Some(position) => Some(position),
            None => self.load(keyed)?,
        };
        let (table, core) = keyed.split::<ValueUnit<T>>(self.index)?;
        match position {
            Some(position) => Ok(table.active.read(position).get()),
            None => Ok(table.frozen_unit(&core.current).and_then(ValueUnit::get)),
        }
    }

    /// Brings the value into the active layer; `None` when a frozen one has it.
    fn load(&self, keyed: &mut KeyedState) -> Result<Option<usize>> {
        keyed.make_room()?;
        let (table, core) = keyed.split::<ValueUnit<T>>(self.index)?;
        // Making room may have turned a frozen layer into a cache.
        if let Some(position) = table.touch(&core.current) {
            return Ok(Some(position));
        }
        if table.frozen_unit(&core.current).is_some() {
            return Ok(None);
        }
        let stored = core.store.get(Family::State, &table.prefix(&core.current))?;
        let value = stored.map(|bytes| Codec::decode(&bytes)).transpose()?;
        let key = &core.current;
        Ok(Some(table.active.insert(key.hash(), key.bytes(), ValueUnit::loaded(value))))
    }

    /// Sets the current key's value; reads nothing.
    ///
    /// # Errors
    /// An external error of the store, when the cache is full and something must be written.
    pub fn set(&self, keyed: &mut KeyedState, value: T) -> Result<()> {
        self.overwrite(keyed, |unit| unit.set(value))
    }

    /// Removes the current key's value; reads nothing.
    ///
    /// # Errors
    /// As [`ValueState::set`].
    pub fn clear(&self, keyed: &mut KeyedState) -> Result<()> {
        self.overwrite(keyed, ValueUnit::clear)
    }

    fn overwrite(&self, keyed: &mut KeyedState, change: impl FnOnce(&mut ValueUnit<T>)) -> Result<()> {
        keyed.make_room_for_writes()?;
        let (table, core) = keyed.split::<ValueUnit<T>>(self.index)?;
        let key = &core.current;
        let position = match table.touch(key) {
            Some(position) => position,
            None => table.active.insert(key.hash(), key.bytes(), ValueUnit::unknown()),
        };
        table.active.change(position, change);
        Ok(())
    }

    /// Changes the current key's value in place: `change` sees what is there and leaves what
    /// shall be there. Cheaper than a `get`, a clone and a `set`.
    ///
    /// # Errors
    /// As [`ValueState::get`] and [`ValueState::set`].
    pub fn modify<R>(&self, keyed: &mut KeyedState, change: impl FnOnce(&mut Option<T>) -> R) -> Result<R> {
        keyed.make_room_for_writes()?;
        let (table, core) = keyed.split::<ValueUnit<T>>(self.index)?;
        let position = match table.touch(&core.current) {
            Some(position) => position,
            None => match self.load(keyed)? {
                Some(position) => position,
                None => self.thaw_copy(keyed)?,
            },
        };
        let (table, _) = keyed.split::<ValueUnit<T>>(self.index)?;
        Ok(table.active.change(position, |unit| unit.modify(change)))
    }

    /// Copies the frozen value into the active layer.
    fn thaw_copy(&self, keyed: &mut KeyedState) -> Result<usize> {
        let (table, core) = keyed.split::<ValueUnit<T>>(self.index)?;
        let key = &core.current;
        let mut unit = table.frozen_unit(key).cloned().unwrap_or_else(ValueUnit::unknown);
        unit.settle();
        Ok(table.active.insert(key.hash(), key.bytes(), unit))
    }
}
