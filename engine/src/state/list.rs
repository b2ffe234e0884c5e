//! List state: values in the order in which they were appended, for each key.
//!
//! What was appended within one epoch is written as one segment under
//! `prefix | epoch (u64 BE)`, so appending reads nothing and rewrites nothing. A list that is read
//! and lies in many segments is rewritten as one with the next write.

use std::marker::PhantomData;

use super::codec::Codec;
use super::current_key::CurrentKey;
use super::keyed::{Core, KeyedState};
use super::op_sink::{OpSink, prefix_end};
use super::state_size::StateValue;
use super::store::Family;
use super::table::Table;
use super::unit::{Epoch, Unit};
use crate::Result;

/// A list in more segments than this is rewritten when it was read.
const SEGMENTS_MAX: usize = 16;

/// The known part of a list.
#[derive(Clone)]
pub(super) struct ListUnit<T> {
    /// What the store has (or a frozen layer is about to give it); `None` when not known.
    base: Option<Vec<T>>,
    /// What came after it and is not written.
    appended: Vec<T>,
    /// The store's segments are to be removed; the base is then known and empty.
    cleared: bool,
    /// Whether the store may have segments.
    in_store: bool,
    heap_bytes: usize,
}

impl<T: StateValue> ListUnit<T> {
    fn unknown() -> Self {
        ListUnit { base: None, appended: Vec::new(), cleared: false, in_store: true, heap_bytes: 0 }
    }

    fn append(&mut self, value: T) {
        self.heap_bytes += value.state_size();
        self.appended.push(value);
    }

    fn clear(&mut self) {
        self.base = Some(Vec::new());
        self.appended = Vec::new();
        self.cleared = self.in_store;
        self.heap_bytes = 0;
    }

    /// Learns what the store has.
    fn learn(&mut self, base: Vec<T>, segments: usize) {
        self.in_store = segments > 0;
        self.heap_bytes += base.iter().map(T::state_size).sum::<usize>();
        if segments > SEGMENTS_MAX {
            let newer = std::mem::replace(&mut self.appended, base);
            self.appended.extend(newer);
            self.base = Some(Vec::new());
            self.cleared = true;
        } else {
            self.base = Some(base);
        }
    }
}

impl<T: StateValue> Unit for ListUnit<T> {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.heap_bytes
    }

    fn is_dirty(&self) -> bool {
        self.cleared || !self.appended.is_empty()
    }

    fn write(&self, prefix: &[u8], epoch: Epoch, sink: &mut OpSink<'_>) -> Result<()> {
        if self.cleared {
            sink.delete_prefix(prefix)?;
        }
        if !self.appended.is_empty() {
            let mut key = prefix.to_vec();
            key.extend_from_slice(&epoch.to_be_bytes());
            sink.put(key, Codec::to_vec(&self.appended)?)?;
        }
        Ok(())
    }

    fn settle(&mut self) {
        let appended = std::mem::take(&mut self.appended);
        self.in_store =
            if self.cleared { !appended.is_empty() } else { self.in_store || !appended.is_empty() };
        self.cleared = false;
        match &mut self.base {
            Some(base) => base.extend(appended),
            None => self.heap_bytes = 0,
        }
    }
}

/// A handle to a list state, made by [`KeyedState::list`]. Cheap to copy; works on the current key
/// of the state that made it.
pub struct ListState<T> {
    index: usize,
    value: PhantomData<fn() -> T>,
}

/// A handle that is not registered yet: every use fails with a clear error. For structs that are
/// made before their states can be.
impl<T> Default for ListState<T> {
    fn default() -> Self {
        ListState { index: usize::MAX, value: PhantomData }
    }
}

impl<T> Clone for ListState<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ListState<T> {}

impl<T> std::fmt::Debug for ListState<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ListState({})", self.index)
    }
}

impl<T: StateValue> ListState<T> {
    pub(super) fn new(index: usize) -> Self {
        ListState { index, value: PhantomData }
    }

    /// Appends to the current key's list; reads nothing.
    ///
    /// # Errors
    /// An external error of the store, when the cache is full and something must be written.
    pub fn append(&self, keyed: &mut KeyedState, value: T) -> Result<()> {
        self.change(keyed, |unit| unit.append(value))
    }

    /// Removes the current key's list; reads nothing.
    ///
    /// # Errors
    /// As [`ListState::append`].
    pub fn clear(&self, keyed: &mut KeyedState) -> Result<()> {
        self.change(keyed, ListUnit::clear)
    }

    /// Replaces the current key's list.
    ///
    /// # Errors
    /// As [`ListState::append`].
    pub fn set(&self, keyed: &mut KeyedState, values: Vec<T>) -> Result<()> {
        self.change(keyed, |unit| {
            unit.clear();
            values.into_iter().for_each(|value| unit.append(value));
        })
    }

    fn change(&self, keyed: &mut KeyedState, change: impl FnOnce(&mut ListUnit<T>)) -> Result<()> {
        keyed.make_room_for_writes()?;
        let (table, core) = keyed.split::<ListUnit<T>>(self.index)?;
        let key = &core.current;
        let position = match table.touch(key) {
            Some(position) => position,
            None => table.active.insert(key.hash(), key.bytes(), ListUnit::unknown()),
        };
        table.active.change(position, change);
        Ok(())
    }

    /// The current key's list, whole.
    ///
    /// # Errors
    /// An external error of the store; a user error when a stored value is not a `T`.
    pub fn get(&self, keyed: &mut KeyedState) -> Result<Vec<T>> {
        keyed.make_room()?;
        let (table, core) = keyed.split::<ListUnit<T>>(self.index)?;
        let key = &core.current;
        if let Some(position) = table.touch(key)
            && let ListUnit { base: Some(base), appended, .. } = table.active.read(position)
        {
            return Ok(base.iter().chain(appended).cloned().collect());
        }
        if table.frozen_unit(key).is_some() {
            return Self::assemble(table, core);
        }
        let (base, segments) = Self::stored(table, core, None)?;
        let position = match table.active.find(key.hash(), key.bytes()) {
            Some(position) => position,
            None => table.active.insert(key.hash(), key.bytes(), ListUnit::unknown()),
        };
        Ok(table.active.change(position, |unit| {
            unit.learn(base, segments);
            unit.base.iter().flatten().chain(&unit.appended).cloned().collect()
        }))
    }

    /// Puts the list together from the store, frozen layers and the active one, and remembers
    /// nothing: the store's part is about to change.
    fn assemble(table: &Table<ListUnit<T>>, core: &Core) -> Result<Vec<T>> {
        let key: &CurrentKey = &core.current;
        let active = table.active.find(key.hash(), key.bytes()).map(|at| &table.active.slot(at).unit);
        let active = active.map(|unit| (Epoch::MAX, unit));
        let mut newer = Vec::new();
        let mut before = None;
        let mut base = None;
        for (epoch, unit) in active.into_iter().chain(table.frozen_units(key)) {
            newer.push(&unit.appended);
            before = Some(epoch);
            if let Some(known) = &unit.base {
                base = Some(known.clone());
                break;
            }
        }
        let mut list = match base {
            Some(base) => base,
            None => Self::stored(table, core, before)?.0,
        };
        newer.iter().rev().for_each(|appended| list.extend_from_slice(appended));
        Ok(list)
    }

    /// What the store had before epoch `before`, and in how many segments.
    fn stored(table: &Table<ListUnit<T>>, core: &Core, before: Option<Epoch>) -> Result<(Vec<T>, usize)> {
        let prefix = table.prefix(&core.current);
        let mut end = prefix_end(&prefix);
        if let Some(before) = before {
            end.clone_from(&prefix);
            end.extend_from_slice(&before.to_be_bytes());
        }
        let (mut list, mut segments) = (Vec::new(), 0);
        core.store.scan(Family::State, &prefix..&end, &mut |_, value| {
            list.append(&mut Codec::decode::<Vec<T>>(value)?);
            segments += 1;
            Ok(true)
        })?;
        Ok((list, segments))
    }

    /// Whether the current key's list has no values.
    ///
    /// # Errors
    /// As [`ListState::get`].
    pub fn is_empty(&self, keyed: &mut KeyedState) -> Result<bool> {
        let (table, core) = keyed.split::<ListUnit<T>>(self.index)?;
        if let Some(position) = table.touch(&core.current) {
            let unit = table.active.read(position);
            if !unit.appended.is_empty() {
                return Ok(false);
            }
            if let Some(base) = &unit.base {
                return Ok(base.is_empty());
            }
        }
        Ok(self.get(keyed)?.is_empty())
    }
}
