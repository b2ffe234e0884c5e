//! Map state: an ordered map for each key, larger than memory if it must be.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use super::codec::Codec;
use super::keyed::{Core, KeyedState};
use super::map_key::{MapKey, decode_whole};
use super::map_unit::MapUnit;
use super::op_sink::prefix_end;
use super::state_size::StateValue;
use super::store::Family;
use super::table::Table;
use super::unit::Unit;
use crate::Result;

/// A map up to this size is kept whole in the cache once it was iterated.
const WHOLE_BYTES_MAX: usize = 64 * 1024;
/// A frozen map up to this size is copied when it is changed, so that it stays known as a whole.
const COPIED_BYTES_MAX: usize = 4 * 1024;

/// A handle to a map state, made by [`KeyedState::map`]. Cheap to copy; works on the current key
/// of the state that made it.
pub struct MapState<K, V> {
    index: usize,
    entry: PhantomData<fn() -> (K, V)>,
}

/// A handle that is not registered yet: every use fails with a clear error. For structs that are
/// made before their states can be.
impl<K, V> Default for MapState<K, V> {
    fn default() -> Self {
        MapState { index: usize::MAX, entry: PhantomData }
    }
}

impl<K, V> Clone for MapState<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for MapState<K, V> {}

impl<K, V> std::fmt::Debug for MapState<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MapState({})", self.index)
    }
}

/// Who has spoken about an entry.
enum Spoke {
    Active(usize),
    Frozen,
    Nobody,
}

impl<K: MapKey, V: StateValue> MapState<K, V> {
    pub(super) fn new(index: usize) -> Self {
        MapState { index, entry: PhantomData }
    }

    /// The entry of `key` in the current key's map.
    ///
    /// # Errors
    /// An external error of the store; a user error when the stored value is not a `V`.
    pub fn get<'k>(&self, keyed: &'k mut KeyedState, key: &K) -> Result<Option<&'k V>> {
        let (table, core) = keyed.split::<MapUnit<K, V>>(self.index)?;
        let spoke = match Self::spoke(table, core, key) {
            Spoke::Nobody => self.load(keyed, key)?,
            spoke => spoke,
        };
        let (table, core) = keyed.split::<MapUnit<K, V>>(self.index)?;
        Ok(match spoke {
            Spoke::Active(position) => table.active.read(position).known(key).flatten(),
            _ => table.frozen_units(&core.current).find_map(|(_, unit)| unit.known(key)).flatten(),
        })
    }

    /// Whether the current key's map has an entry of `key`.
    ///
    /// # Errors
    /// As [`MapState::get`].
    pub fn contains(&self, keyed: &mut KeyedState, key: &K) -> Result<bool> {
        Ok(self.get(keyed, key)?.is_some())
    }

    fn spoke(table: &mut Table<MapUnit<K, V>>, core: &Core, key: &K) -> Spoke {
        if let Some(position) = table.touch(&core.current)
            && table.active.slot(position).unit.known(key).is_some()
        {
            return Spoke::Active(position);
        }
        match table.frozen_units(&core.current).any(|(_, unit)| unit.known(key).is_some()) {
            true => Spoke::Frozen,
            false => Spoke::Nobody,
        }
    }

    fn load(&self, keyed: &mut KeyedState, key: &K) -> Result<Spoke> {
        keyed.make_room()?;
        let (table, core) = keyed.split::<MapUnit<K, V>>(self.index)?;
        // Making room may have turned a frozen layer into a cache.
        match Self::spoke(table, core, key) {
            Spoke::Nobody => {}
            spoke => return Ok(spoke),
        }
        let mut full = table.prefix(&core.current);
        key.encode_key(&mut full);
        let stored = core.store.get(Family::State, &full)?;
        let value = stored.map(|bytes| Codec::decode(&bytes)).transpose()?;
        let position = Self::active(table, core);
        table.active.change(position, |unit| unit.learn(key.clone(), value));
        Ok(Spoke::Active(position))
    }

    /// The current key's unit in the active layer; made when there is none.
    fn active(table: &mut Table<MapUnit<K, V>>, core: &Core) -> usize {
        let current = &core.current;
        if let Some(position) = table.touch(current) {
            return position;
        }
        let small = |unit: &&MapUnit<K, V>| unit.is_complete() && unit.bytes() <= COPIED_BYTES_MAX;
        let unit = match table.frozen_unit(current).filter(small).cloned() {
            Some(mut unit) => {
                unit.settle();
                unit
            }
            None => MapUnit::unknown(),
        };
        table.active.insert(current.hash(), current.bytes(), unit)
    }

    /// Sets an entry; reads nothing.
    ///
    /// # Errors
    /// An external error of the store, when the cache is full and something must be written.
    pub fn put(&self, keyed: &mut KeyedState, key: K, value: V) -> Result<()> {
        self.change(keyed, |unit| unit.put(key, value))
    }

    /// Removes an entry; reads nothing.
    ///
    /// # Errors
    /// As [`MapState::put`].
    pub fn remove(&self, keyed: &mut KeyedState, key: &K) -> Result<()> {
        self.change(keyed, |unit| unit.remove(key))
    }

    /// Removes the current key's map; reads nothing.
    ///
    /// # Errors
    /// As [`MapState::put`].
    pub fn clear(&self, keyed: &mut KeyedState) -> Result<()> {
        self.change(keyed, MapUnit::clear)
    }

    fn change(&self, keyed: &mut KeyedState, change: impl FnOnce(&mut MapUnit<K, V>)) -> Result<()> {
        keyed.make_room_for_writes()?;
        let (table, core) = keyed.split::<MapUnit<K, V>>(self.index)?;
        let position = Self::active(table, core);
        table.active.change(position, change);
        Ok(())
    }

    /// The current key's entries in key order, in memory. For maps that may be large, see
    /// [`MapState::for_each`].
    ///
    /// # Errors
    /// As [`MapState::get`].
    pub fn iter(&self, keyed: &mut KeyedState) -> Result<std::vec::IntoIter<(K, V)>> {
        let mut entries = Vec::new();
        self.for_each(keyed, |key, value| {
            entries.push((key.clone(), value.clone()));
            Ok(true)
        })?;
        Ok(entries.into_iter())
    }

    /// Whether the current key's map has no entries.
    ///
    /// # Errors
    /// As [`MapState::get`].
    pub fn is_empty(&self, keyed: &mut KeyedState) -> Result<bool> {
        let mut empty = true;
        self.for_each(keyed, |_, _| {
            empty = false;
            Ok(false)
        })?;
        Ok(empty)
    }

    /// Calls `visit` with the current key's entries in key order until it answers `false`.
    /// Memory is bounded whatever the map's size.
    ///
    /// # Errors
    /// As [`MapState::get`], or `visit`'s.
    pub fn for_each(
        &self,
        keyed: &mut KeyedState,
        mut visit: impl FnMut(&K, &V) -> Result<bool>,
    ) -> Result<()> {
        self.learn_whole(keyed)?;
        let (table, core) = keyed.split::<MapUnit<K, V>>(self.index)?;
        let current = &core.current;
        let active = table.touch(current).map(|position| &table.active.slot(position).unit);
        if let Some(unit) = active.filter(|unit| unit.is_complete()) {
            for (key, value) in unit.entries() {
                if let Some(value) = value
                    && !visit(key, value)?
                {
                    break;
                }
            }
            return Ok(());
        }
        let (known, complete) =
            Self::overlay(active.into_iter().chain(table.frozen_units(current).map(|u| u.1)));
        Self::merge(&known, complete, table, core, &mut visit)
    }

    /// What the cache knows, the newest first: later units only add.
    fn overlay<'a>(units: impl Iterator<Item = &'a MapUnit<K, V>>) -> (BTreeMap<&'a K, Option<&'a V>>, bool) {
        let mut known = BTreeMap::new();
        for unit in units {
            for (key, value) in unit.entries() {
                known.entry(key).or_insert(value);
            }
            if unit.is_complete() {
                return (known, true);
            }
        }
        (known, false)
    }

    fn merge(
        known: &BTreeMap<&K, Option<&V>>,
        complete: bool,
        table: &Table<MapUnit<K, V>>,
        core: &Core,
        visit: &mut dyn FnMut(&K, &V) -> Result<bool>,
    ) -> Result<()> {
        let mut known = known.iter().peekable();
        let mut more = true;
        if !complete {
            let prefix = table.prefix(&core.current);
            let end = prefix_end(&prefix);
            core.store.scan(Family::State, &prefix..&end, &mut |stored, bytes| {
                let key: K = decode_whole(&stored[prefix.len()..])?;
                while more && let Some((first, value)) = known.next_if(|(first, _)| **first < &key) {
                    more = value.map_or(Ok(true), |value| visit(first, value))?;
                }
                if more {
                    more = match known.next_if(|(first, _)| **first == &key) {
                        Some((_, value)) => value.map_or(Ok(true), |value| visit(&key, value))?,
                        None => visit(&key, &Codec::decode(bytes)?)?,
                    };
                }
                Ok(more)
            })?;
        }
        for (key, value) in known {
            if !more {
                break;
            }
            more = value.map_or(Ok(true), |value| visit(key, value))?;
        }
        Ok(())
    }

    /// Reads a small map whole into the cache, unless a frozen layer has a part of it.
    fn learn_whole(&self, keyed: &mut KeyedState) -> Result<()> {
        keyed.make_room()?;
        let whole_bytes_max = WHOLE_BYTES_MAX.min(keyed.cache_bytes_max() / 8);
        let (table, core) = keyed.split::<MapUnit<K, V>>(self.index)?;
        let touched = table.touch(&core.current);
        if touched.is_some_and(|position| table.active.slot(position).unit.is_complete())
            || table.frozen_unit(&core.current).is_some()
        {
            return Ok(());
        }
        let prefix = table.prefix(&core.current);
        let end = prefix_end(&prefix);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        core.store.scan(Family::State, &prefix..&end, &mut |stored, value| {
            bytes += stored.len() + value.len() + 32;
            if bytes <= whole_bytes_max {
                entries.push((decode_whole::<K>(&stored[prefix.len()..])?, Codec::decode::<V>(value)?));
            }
            Ok(bytes <= whole_bytes_max)
        })?;
        if bytes <= whole_bytes_max {
            let position = Self::active(table, core);
            table.active.change(position, |unit| {
                entries.into_iter().for_each(|(key, value)| unit.learn(key, Some(value)));
                unit.learn_all();
            });
        }
        Ok(())
    }
}
