//! The keyed state of one instance of an operator: its states, its timers, the cache in front of
//! the store, and what happens to them at a barrier.
//!
//! The rule it lives by: the store holds what was known at some barrier or later, never a mixture
//! that a snapshot could see. Memory is bounded: when the cache is full, cold values leave it;
//! when too much is unwritten, cold values are written (a trickle); while a helper thread writes
//! what a barrier froze, the task writes nothing and, at its bounds, waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::current_key::CurrentKey;
use super::frozen::{Flush, FrozenLayer};
use super::key_group::KeyGroupRange;
use super::list::{ListState, ListUnit};
use super::map::MapState;
use super::map_key::MapKey;
use super::map_unit::MapUnit;
use super::op_sink::{OpSink, Target};
use super::state_meta::{StateKind, StateMeta};
use super::state_size::StateValue;
use super::store::{KvStore, StateBackend, StoreSite};
use super::table::{AnyTable, Place, Table};
use super::timer_key::Clock;
use super::timer_overlay::TimerOverlay;
use super::timer_queue::TimerQueue;
use super::unit::{Epoch, Unit};
use super::value::{ValueState, ValueUnit};
use crate::checkpoint::CheckpointId;
use crate::metrics::{Counter, Gauge};
use crate::operator::{OpenContext, OperatorSnapshot};
use crate::{Context, Error, Result};

/// Bytes that are freed or written at once when a bound is hit: a few milliseconds' work.
const SHARE_BYTES: usize = 256 * 1024;
/// Bytes dropped from the oldest layer at each miss while there are too many layers.
const DEEP_SHED_BYTES: usize = 4 * 1024;

/// What an operator says about its keyed state when it opens it.
#[derive(Clone, Debug)]
pub struct KeyedStateSpec {
    /// Bytes of decoded values to keep in front of the store. A quarter of it is the bound of what
    /// is not yet written.
    pub cache_bytes_max: usize,
    /// Bytes of timers to keep in memory, for each of the two clocks.
    pub timer_bytes_max: usize,
}

impl Default for KeyedStateSpec {
    /// 32 MiB of values, 4 MiB of timers for each clock.
    fn default() -> Self {
        KeyedStateSpec { cache_bytes_max: 32 << 20, timer_bytes_max: 4 << 20 }
    }
}

impl KeyedStateSpec {
    /// What an instance may hold by its backend's budget: of it a tenth for the timers of each
    /// clock, the rest for values. The default, when the backend has no budget.
    pub fn of_backend(backend: &dyn StateBackend) -> KeyedStateSpec {
        backend.instance_bytes().map_or_else(KeyedStateSpec::default, |bytes| KeyedStateSpec {
            cache_bytes_max: bytes - 2 * (bytes / 10),
            timer_bytes_max: bytes / 10,
        })
    }
}

/// What all states of an instance share.
pub(super) struct Core {
    pub(super) store: Box<dyn KvStore>,
    pub(super) current: CurrentKey,
    pub(super) owned: KeyGroupRange,
    pub(super) max_parallelism: u32,
    /// Barriers' layers that are not known to be in the store, oldest first.
    pub(super) frozen: Vec<Arc<FrozenLayer>>,
    /// What the active layers will be written under.
    epoch: Epoch,
    waits_for_flush: bool,
}

/// The keyed state of one instance of an operator.
///
/// All states and timers work on the current key, see [`KeyedState::set_current_key`].
pub struct KeyedState {
    pub(super) core: Core,
    pub(super) timers: TimerOverlay,
    pub(super) event_timers: TimerQueue,
    pub(super) processing_timers: TimerQueue,
    tables: Vec<Box<dyn AnyTable>>,
    names: BTreeMap<String, usize>,
    meta: StateMeta,
    cache_bytes_max: usize,
    cache_bytes: Gauge,
    store_bytes: Gauge,
    flush_waits: Counter,
}

impl KeyedState {
    /// Opens the state, restored.
    ///
    /// # Errors
    /// An external error when the store or the snapshot cannot be read; a user error when the
    /// snapshot does not fit the job; an internal error when the operator has keyed state already.
    pub fn open(cx: &mut OpenContext<'_>, spec: KeyedStateSpec) -> Result<KeyedState> {
        cx.claim_keyed_state()?;
        let info = cx.info;
        let owned = KeyGroupRange::of_subtask(info.subtask, info.parallelism, info.max_parallelism);
        let place = || format!("keyed state of {} ({}/{})", info.uid, info.subtask, info.parallelism);
        let meta = StateMeta::restored(cx.restored.keyed(), info.max_parallelism).context(place)?;
        let site = StoreSite {
            uid: &info.uid,
            subtask: info.subtask,
            key_groups: owned,
            restored: cx.restored,
            storage: cx.storage.as_ref(),
            unique: info.instance_name(),
        };
        let store = cx.backend.open(&site).context(place)?;
        let restored = cx.restored.keyed().next().is_some();
        let queue = |clock| TimerQueue::new(clock, owned, spec.timer_bytes_max, restored);
        Ok(KeyedState {
            core: Core {
                store,
                current: CurrentKey::default(),
                owned,
                max_parallelism: info.max_parallelism,
                frozen: Vec::new(),
                epoch: meta.next_epoch,
                waits_for_flush: cx.backend.waits_for_flush(),
            },
            timers: TimerOverlay::default(),
            event_timers: queue(Clock::Event),
            processing_timers: queue(Clock::Processing),
            tables: Vec::new(),
            names: BTreeMap::new(),
            meta,
            cache_bytes_max: spec.cache_bytes_max,
            cache_bytes: cx.metrics.gauge("state_cache_bytes", "Decoded values held in memory."),
            store_bytes: cx.metrics.gauge("state_store_bytes", "Bytes in the store below the cache."),
            flush_waits: cx
                .metrics
                .counter("state_flush_waits_total", "Times that a task waited for a helper to write."),
        })
    }

    /// The value state `name`. Asking twice gives the same state.
    ///
    /// # Errors
    /// A user error when the state was, in the snapshot or in this program, something else.
    pub fn value<T: StateValue>(&mut self, name: &str) -> Result<ValueState<T>> {
        Ok(ValueState::new(self.table::<ValueUnit<T>>(name, StateKind::Value)?))
    }

    /// The list state `name`. Asking twice gives the same state.
    ///
    /// # Errors
    /// As [`KeyedState::value`].
    pub fn list<T: StateValue>(&mut self, name: &str) -> Result<ListState<T>> {
        Ok(ListState::new(self.table::<ListUnit<T>>(name, StateKind::List)?))
    }

    /// The map state `name`. Asking twice gives the same state.
    ///
    /// # Errors
    /// As [`KeyedState::value`].
    pub fn map<K: MapKey, V: StateValue>(&mut self, name: &str) -> Result<MapState<K, V>> {
        Ok(MapState::new(self.table::<MapUnit<K, V>>(name, StateKind::Map)?))
    }

    fn table<U: Unit>(&mut self, name: &str, kind: StateKind) -> Result<usize> {
        let state = self.meta.add(name, kind)?;
        if let Some(&index) = self.names.get(name) {
            if self.tables[index].as_any().is::<Table<U>>() {
                return Ok(index);
            }
            return Err(Error::user(format!("state {name:?} is asked for with two types")));
        }
        let place = Place { state, max_parallelism: self.core.max_parallelism };
        let mut table: Table<U> = Table::new(place);
        // Barriers may be on their way: each table takes part in each.
        for _ in &self.core.frozen {
            table.freeze(self.core.epoch);
        }
        self.tables.push(Box::new(table));
        self.names.insert(name.to_string(), self.tables.len() - 1);
        Ok(self.tables.len() - 1)
    }

    /// Says whose state is meant from now on. `hash` is the key's, see
    /// [`hash_key`](super::key_encoding::hash_key).
    #[inline]
    pub fn set_current_key(&mut self, hash: u64, key_bytes: &[u8]) {
        self.core.current.set(hash, key_bytes, self.core.max_parallelism);
    }

    /// The current key, encoded.
    pub fn current_key(&self) -> &[u8] {
        self.core.current.bytes()
    }

    /// The key groups of this instance.
    pub fn key_groups(&self) -> KeyGroupRange {
        self.core.owned
    }

    /// Freezes what is known now for `checkpoint`: a swap, whatever the state's size. The work is
    /// in the task that it answers.
    ///
    /// # Errors
    /// None in practice.
    pub fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let flush = self.freeze(checkpoint)?;
        Ok(OperatorSnapshot {
            flushes: vec![Box::new(move |site| flush.run(site))],
            ..OperatorSnapshot::default()
        })
    }

    pub(super) fn freeze(&mut self, checkpoint: CheckpointId) -> Result<Flush> {
        self.reap();
        let meta = self.meta.to_bytes(self.core.epoch + 1, self.core.max_parallelism)?;
        let units = self.tables.iter_mut().map(|table| table.freeze(self.core.epoch)).collect();
        let timers = Arc::new(std::mem::take(&mut self.timers));
        self.core.epoch += 1;
        let layer = Arc::new(FrozenLayer::new(units, timers));
        let earlier = self.core.frozen.iter().cloned().collect();
        let snapshotter = self.core.store.snapshotter();
        let flush = Flush::new(checkpoint, layer.clone(), earlier, snapshotter, self.core.owned, meta);
        self.core.frozen.push(layer);
        self.cache_bytes.set(self.bytes() as i64);
        self.store_bytes.set(self.core.store.bytes() as i64);
        Ok(flush)
    }

    /// The checkpoint was published.
    ///
    /// # Errors
    /// None in practice.
    pub fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        let _ = checkpoint;
        self.reap();
        Ok(())
    }

    /// The checkpoint will never be published. Nothing is lost: what it froze is written now, with
    /// the next barrier, or has been.
    ///
    /// # Errors
    /// None in practice.
    pub fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        let _ = checkpoint;
        self.reap();
        Ok(())
    }

    /// A state's layers and what all states share.
    ///
    /// # Errors
    /// A user error when the handle was not registered; an internal error when it is another
    /// instance's, or no owned key was set.
    #[inline]
    pub(super) fn split<U: Unit>(&mut self, index: usize) -> Result<(&mut Table<U>, &mut Core)> {
        self.core.current.check(self.core.owned)?;
        let table = self.tables.get_mut(index).and_then(|table| table.as_any_mut().downcast_mut());
        let table = table.ok_or_else(|| match index {
            usize::MAX => Error::user("a state is used that was not registered when the operator opened"),
            _ => Error::internal("a state's handle is used with another state"),
        })?;
        Ok((table, &mut self.core))
    }

    pub(super) fn cache_bytes_max(&self) -> usize {
        self.cache_bytes_max
    }

    fn bytes(&self) -> usize {
        let tables = self.tables.iter().map(|table| table.bytes());
        let frozen_timers = self.core.frozen.iter().map(|layer| layer.timers.bytes());
        tables.chain(frozen_timers).sum::<usize>() + self.timers.bytes()
    }

    fn dirty_bytes(&self) -> usize {
        self.tables.iter().map(|table| table.dirty_bytes()).sum::<usize>() + self.timers.bytes()
    }

    fn dirty_bytes_max(&self) -> usize {
        self.cache_bytes_max / 4
    }

    /// Layers that have reached the store serve as a cache from here on.
    fn reap(&mut self) {
        while self.core.frozen.first().is_some_and(|layer| layer.stage().is_stored()) {
            self.core.frozen.remove(0);
            self.tables.iter_mut().for_each(|table| table.thaw());
        }
    }

    /// Makes sure that one more value may be read into the cache.
    pub(super) fn make_room(&mut self) -> Result<()> {
        if !self.core.frozen.is_empty() {
            self.reap();
        }
        for table in &mut self.tables {
            if table.is_deep() {
                table.shed(DEEP_SHED_BYTES);
            }
        }
        let resting_max = self.cache_bytes_max - self.dirty_bytes_max();
        match self.bytes() {
            bytes if bytes > resting_max => self.shrink(bytes - resting_max),
            _ => Ok(()),
        }
    }

    /// Frees `excess` bytes and a share more.
    fn shrink(&mut self, excess: usize) -> Result<()> {
        let share = SHARE_BYTES.min(self.cache_bytes_max / 16);
        let mut wanted = excess + share;
        for table in &mut self.tables {
            wanted = wanted.saturating_sub(table.shed(wanted));
        }
        if wanted <= share {
            return Ok(());
        }
        if !self.core.frozen.is_empty() {
            // While a helper writes, the frozen layer cannot shrink and the bound is the whole
            // cache; only what nobody needs to write can go.
            if self.bytes() <= self.cache_bytes_max {
                return Ok(());
            }
            if self.helper_writes() {
                for table in &mut self.tables {
                    wanted = wanted.saturating_sub(table.evict_clean(wanted));
                }
                if wanted <= share || !self.core.waits_for_flush {
                    return Ok(());
                }
            }
            self.close_frozen()?;
            for table in &mut self.tables {
                wanted = wanted.saturating_sub(table.shed(wanted));
            }
            if wanted <= share {
                return Ok(());
            }
        }
        self.write_cold(wanted, true)
    }

    /// Makes sure that one more value may be changed.
    pub(super) fn make_room_for_writes(&mut self) -> Result<()> {
        self.make_room()?;
        if self.dirty_bytes() <= self.dirty_bytes_max() {
            return Ok(());
        }
        if !self.core.frozen.is_empty() {
            if self.helper_writes() && !self.core.waits_for_flush {
                return Ok(());
            }
            self.close_frozen()?;
        }
        let share = SHARE_BYTES.min(self.dirty_bytes_max() / 4).max(1);
        let excess = self.dirty_bytes().saturating_sub(self.dirty_bytes_max());
        self.write_cold(excess + share, false)
    }

    #[cfg(test)]
    pub(super) fn flush_waits(&self) -> Counter {
        self.flush_waits.clone()
    }

    #[cfg(test)]
    pub(super) fn stop_waiting(&mut self) {
        self.core.waits_for_flush = false;
    }

    fn helper_writes(&self) -> bool {
        self.core.frozen.iter().any(|layer| layer.stage().is_open())
    }

    /// Brings every frozen layer into the store: waits for helpers, writes what they abandoned.
    fn close_frozen(&mut self) -> Result<()> {
        for layer in &self.core.frozen {
            if layer.stage().is_open() {
                self.flush_waits.add(1);
                layer.wait_until_closed();
            }
        }
        for layer in &self.core.frozen {
            if !layer.stage().is_stored() {
                layer.write(&mut OpSink::new(Target::Store(self.core.store.as_mut())))?;
            }
        }
        self.reap();
        Ok(())
    }

    /// Writes about `wanted` bytes of cold values, from wherever most are, and drops them with
    /// `evict`. Nothing is frozen.
    fn write_cold(&mut self, wanted: usize, evict: bool) -> Result<()> {
        let mut wanted = wanted;
        let mut sink = OpSink::new(Target::Store(self.core.store.as_mut()));
        let size = |table: &dyn AnyTable| if evict { table.bytes() } else { table.dirty_bytes() };
        let mut order: Vec<usize> = (0..self.tables.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(size(self.tables[index].as_ref())));
        if self.timers.bytes() >= order.first().map_or(0, |&index| size(self.tables[index].as_ref())) {
            let before = self.timers.bytes();
            self.timers.write_some(wanted, &mut sink)?;
            wanted = wanted.saturating_sub(before - self.timers.bytes());
        }
        for index in order {
            if wanted > 0 {
                let done = self.tables[index].write_cold(wanted, evict, self.core.epoch, &mut sink)?;
                wanted = wanted.saturating_sub(done);
            }
        }
        self.core.epoch += 1;
        Ok(())
    }
}
