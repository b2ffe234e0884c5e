//! The columnar state of one instance of an operator: the table in memory over its store.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef};

use super::arena::{Arena, NO_BYTES};
#[cfg(test)]
use super::chunks::CHUNK_SLOTS;
use super::chunks::Chunks;
use super::flush::{FrozenState, Outcome, Promise, RowWriter};
#[cfg(test)]
use super::frozen_rows::ones;
use super::index::Index;
use super::key::{ByteKeys, EncodedKeys, KeyCodec, Keys, Namespaced, StoreKeys, WordKeys};
use super::layout::{ColumnarSpec, EPOCH_MASK, HEADER, Layout};
use super::look_up::{Finder, NO_SLOT, Touched, blank};
use super::meta::{MetaComparison, compare_meta};
use super::slot_state::{Event, SlotState};
use crate::metrics::Counter;
use crate::operator::{OpenContext, OperatorSnapshot};
use crate::state::key_encoding::hash_keys;
use crate::state::{Family, KeyGroupRange, KvStore, StoreSite};
use crate::time::Micros;
use crate::{Error, Result};

/// Keys that one read of the store asks for together: as many as have values of about so many bytes,
/// for the store pins what it answers.
const READ_KEYS_MAX: usize = 8 * 1024;
const READ_KEYS_MIN: usize = 16;
const READ_KEYS_FIRST: usize = 256;
const READ_BYTES_MAX: usize = 1024 * 1024;
/// First bytes of a handle's meta: whose format it is, and the version.
const META_PREFIX: &str = "columnar 1; ";

/// A frozen set that a helper thread is writing.
pub(super) struct Pending {
    outcome: Outcome,
    /// Bytes of its rows that were copied at the freeze.
    pub(super) copied_bytes: usize,
}

/// The columnar state of one instance of an operator.
pub struct ColumnarState {
    pub(super) index: Index,
    pub(super) chunks: Chunks,
    pub(super) arena: Arena,
    pub(super) writer: RowWriter,
    pub(super) store: Box<dyn KvStore>,
    pub(super) key_groups: KeyGroupRange,
    pub(super) bytes_max: usize,
    /// Whether the store may hold keys that are not in memory.
    pub(super) store_may_hold: bool,
    pub(super) epoch: u64,
    pub(super) pending: Option<Pending>,
    /// The chunks where the last eviction and the last write-back ended.
    pub(super) hand: usize,
    pub(super) write_hand: usize,
    pub(super) stored_times: BTreeSet<Micros>,
    pub(super) times_done: Micros,
    waits_for_flush: bool,
    flush_waits: Counter,
    meta: Vec<u8>,
    encoded: EncodedKeys,
    missing: Vec<u32>,
    read_keys: usize,
    /// Bytes of a value of the store, as the last read found them; `None` before the first.
    pub(super) stored_bytes: Option<usize>,
}

impl ColumnarState {
    /// Opens the state, restored.
    ///
    /// # Errors
    /// A user error when the checkpoint was made with another key or another state; an external
    /// error when the store or the snapshot cannot be read; an internal error when the operator has
    /// keyed state already.
    pub fn open(cx: &mut OpenContext<'_>, spec: &ColumnarSpec) -> Result<ColumnarState> {
        cx.claim_keyed_state()?;
        let info = cx.info;
        let key_groups = KeyGroupRange::of_subtask(info.subtask, info.parallelism, info.max_parallelism);
        let keys = KeyCodec::new(&spec.key)?;
        let meta = format!(
            "{META_PREFIX}max_parallelism {}; key {:?}; {}",
            info.max_parallelism,
            keys.types(),
            spec.describe
        );
        let mut has_other_timers = false;
        for handle in cx.restored.keyed() {
            let held = String::from_utf8_lossy(&handle.meta);
            match compare_meta(&held, &meta, &spec.describe_timers) {
                MetaComparison::Same => {}
                MetaComparison::OtherTimers => has_other_timers = true,
                MetaComparison::Other => {
                    return Err(Error::user(format!(
                        "the checkpoint holds another state for {}: {held}; the job has: {meta}",
                        info.uid,
                    )));
                }
            }
        }
        let site = StoreSite {
            uid: &info.uid,
            subtask: info.subtask,
            key_groups,
            restored: cx.restored,
            storage: cx.storage.as_ref(),
            unique: info.instance_name(),
        };
        let store = cx.backend.open(&site)?;
        let layout = Layout::new(&spec.words, spec.namespaced, !keys.is_word());
        let store_keys = StoreKeys { max_parallelism: info.max_parallelism, namespaced: spec.namespaced };
        let timer_offsets = spec.timer_offsets.clone();
        let restored = cx.restored.keyed().next().is_some();
        let mut state = ColumnarState {
            index: Index::new(),
            chunks: Chunks::new(layout.stride),
            arena: Arena::default(),
            writer: RowWriter::new(layout, keys, store_keys, timer_offsets),
            store,
            key_groups,
            bytes_max: spec.bytes_max,
            store_may_hold: restored,
            epoch: 0,
            pending: None,
            hand: 0,
            write_hand: 0,
            stored_times: BTreeSet::new(),
            times_done: Micros::MIN,
            waits_for_flush: cx.backend.waits_for_flush(),
            flush_waits: cx
                .metrics
                .counter("state_flush_waits_total", "Times that a task waited for a helper to write."),
            meta: meta.into_bytes(),
            encoded: EncodedKeys::default(),
            missing: Vec::new(),
            read_keys: READ_KEYS_FIRST,
            stored_bytes: None,
        };
        if has_other_timers {
            state.set_timers_anew()?;
        }
        if restored {
            state.read_stored_times()?;
        }
        Ok(state)
    }

    /// Finds or makes the slot of each row. `hashes` are the key hashes that travel with the batch;
    /// `namespaces` has one for each row where the state is namespaced, and is empty otherwise.
    /// What was found counts as changed. Slots of earlier look-ups are void. `bytes`: the most that
    /// keys and new states may take beside a row's own words. A batch for which that is much is
    /// looked up in parts, see [`ColumnarState::rows_at_once`].
    ///
    /// # Errors
    /// An external error of the store.
    pub fn look_up(
        &mut self,
        columns: &[ArrayRef],
        hashes: &[u64],
        namespaces: &[i64],
        bytes: usize,
        touched: &mut Touched,
    ) -> Result<()> {
        self.settle();
        self.make_room(hashes.len(), bytes)?;
        self.find(columns, hashes, namespaces, true, touched)
    }

    /// As [`ColumnarState::look_up`], by encoded keys; deleted keys stay deleted. The caller has made
    /// room, before it read the keys from the store.
    pub(super) fn look_up_stored(
        &mut self,
        keys: &[&[u8]],
        namespaces: &[i64],
        touched: &mut Touched,
    ) -> Result<()> {
        let columns = self.writer.keys.decode(keys)?;
        let hashes = hash_keys(&columns, keys.len())?;
        self.find(&columns, hashes.values(), namespaces, false, touched)
    }

    fn find(
        &mut self,
        columns: &[ArrayRef],
        hashes: &[u64],
        namespaces: &[i64],
        revive: bool,
        touched: &mut Touched,
    ) -> Result<()> {
        touched.clear();
        self.advance_epoch();
        let mut missing = std::mem::take(&mut self.missing);
        missing.clear();
        let codec = self.writer.keys.clone();
        if codec.is_word() {
            let column = columns.first().ok_or_else(|| Error::internal("a key without a column"))?;
            let words = codec.words(column)?;
            let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
            let keys = WordKeys { hashes, words: &words, nulls };
            self.find_keys(keys, hashes, namespaces, revive, touched, &mut missing);
        } else {
            let mut encoded = std::mem::take(&mut self.encoded);
            codec.encode_columns(columns, hashes.len(), &mut encoded)?;
            let keys = ByteKeys { hashes, keys: &encoded };
            self.find_keys(keys, hashes, namespaces, revive, touched, &mut missing);
            self.encoded = encoded;
        }
        if self.store_may_hold {
            self.load_all(&missing, touched)?;
        } else {
            touched.created.extend_from_slice(&missing);
        }
        self.missing = missing;
        Ok(())
    }

    fn find_keys<K: Keys>(
        &mut self,
        keys: K,
        hashes: &[u64],
        namespaces: &[i64],
        revive: bool,
        touched: &mut Touched,
        missing: &mut Vec<u32>,
    ) {
        let mut finder = Finder {
            index: &mut self.index,
            chunks: &mut self.chunks,
            arena: &mut self.arena,
            epoch: self.epoch,
            revive,
        };
        if self.writer.layout.namespaced {
            finder.find(&Namespaced { keys, hashes, namespaces }, hashes.len(), touched, missing);
        } else {
            finder.find(&keys, hashes.len(), touched, missing);
        }
    }

    /// Reads the states of new slots from the store, some at a time, and makes room for their values
    /// meanwhile.
    fn load_all(&mut self, mut slots: &[u32], touched: &mut Touched) -> Result<()> {
        while !slots.is_empty() {
            let (share, rest) = slots.split_at(self.read_keys.min(slots.len()));
            let bytes = self.load(share, touched)?;
            self.stored_bytes = Some(bytes / share.len());
            if bytes > READ_BYTES_MAX {
                self.read_keys = (share.len() * READ_BYTES_MAX / bytes).max(READ_KEYS_MIN);
            } else if share.len() == self.read_keys && bytes < READ_BYTES_MAX / 2 {
                self.read_keys = (self.read_keys * 2).min(READ_KEYS_MAX);
            }
            if bytes > 0 {
                self.make_room_beside_found()?;
            }
            slots = rest;
        }
        Ok(())
    }

    /// Reads the states of new slots from the store. Answers how many bytes these were.
    fn load(&mut self, slots: &[u32], touched: &mut Touched) -> Result<usize> {
        let mut encoded = EncodedKeys::default();
        let rows = slots.iter().map(|&slot| self.chunks.row(slot));
        self.writer.keys.encode_rows(rows, &self.arena, &mut encoded)?;
        let mut keys = Vec::with_capacity(slots.len());
        for (index, &slot) in slots.iter().enumerate() {
            let mut key = Vec::with_capacity(32);
            let namespace = self.writer.layout.namespace(self.chunks.row(slot));
            self.writer.store_keys.state(encoded.get(index), namespace, &mut key);
            keys.push((key, slot));
        }
        // In the store's order: neighbours share a file, and often a block.
        keys.sort_unstable();
        let (keys, slots): (Vec<Vec<u8>>, Vec<u32>) = keys.into_iter().unzip();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let values = self.store.multi_get(Family::State, &keys)?;
        let mut bytes = 0;
        for (&slot, value) in slots.iter().zip(values) {
            match value {
                Some(value) => {
                    bytes += value.len();
                    let row = self.chunks.row_mut(slot);
                    self.writer.decode_value(&value, row, &mut self.arena)?;
                    self.chunks.happen(slot, Event::Load);
                    touched.loaded.push(slot);
                }
                None => touched.created.push(slot),
            }
        }
        Ok(bytes)
    }

    /// The states, to be read and updated.
    pub fn rows(&mut self) -> Rows<'_> {
        let state = self.writer.layout.state;
        Rows { chunks: &mut self.chunks, arena: &mut self.arena, state }
    }

    /// The key columns of slots.
    ///
    /// # Errors
    /// An internal error when a key does not decode.
    pub fn keys(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let rows = slots.iter().map(|&slot| self.chunks.row(slot));
        self.writer.keys.columns_of_rows(rows, &self.arena)
    }

    /// The namespace of a slot; 0 where there are none.
    pub fn namespace(&self, slot: u32) -> i64 {
        self.writer.layout.namespace(self.chunks.row(slot))
    }

    /// Whether a slot holds a key that is not deleted; for owners that keep slots over look-ups,
    /// which may find theirs evicted, deleted or given to another key.
    pub fn is_live(&self, slot: u32) -> bool {
        self.chunks.is_live(slot)
    }

    /// Number of keys in memory, deleted ones that the store has not heard of included.
    pub fn len(&self) -> usize {
        self.chunks.live()
    }

    /// Whether no key is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Deletes the keys of slots. The slots are void.
    pub fn delete(&mut self, slots: &[u32]) {
        self.settle();
        for &slot in slots.iter().filter(|&&slot| slot != NO_SLOT) {
            if !self.is_live(slot) {
                continue;
            }
            if self.happen(slot, Event::Delete) != SlotState::FREE {
                blank(&mut self.chunks, &mut self.arena, &self.writer.layout, slot);
            }
        }
    }

    /// Lets an event happen to a slot, and forgets the slot when it is free then. Answers its state.
    pub(super) fn happen(&mut self, slot: u32, event: Event) -> SlotState {
        let after = self.chunks.happen(slot, event);
        if after == SlotState::FREE {
            self.forget(&[slot]);
        }
        after
    }

    /// Forgets slots that became free: their rows go last, for they may be a chunk's last ones.
    fn forget(&mut self, slots: &[u32]) {
        for &slot in slots {
            let row = self.chunks.row(slot);
            let tag = (row[HEADER] >> 32) as u32;
            for &handle in &self.writer.layout.handles {
                self.arena.release(row[handle]);
            }
            self.index.remove(tag, slot);
        }
        slots.iter().for_each(|&slot| self.chunks.release(slot));
    }

    /// Freezes what changed since the last snapshot. The task of the result writes and uploads it.
    ///
    /// # Errors
    /// An external error when the frozen set of the checkpoint before is still being written.
    pub fn snapshot(&mut self) -> Result<OperatorSnapshot> {
        self.settle();
        if self.pending.is_some() {
            return Err(Error::external("the state of the checkpoint before is still being written"));
        }
        let rows = self.chunks.freeze();
        let (promise, outcome) = Promise::new();
        self.pending = Some(Pending { outcome, copied_bytes: rows.copied_bytes() });
        let frozen = FrozenState {
            rows,
            arena: self.arena.clone(),
            writer: self.writer.clone(),
            snapshotter: self.store.snapshotter(),
            key_groups: self.key_groups,
            meta: self.meta.clone(),
            promise,
        };
        Ok(OperatorSnapshot {
            flushes: vec![Box::new(move |site| frozen.run(site))],
            ..OperatorSnapshot::default()
        })
    }

    /// Waits for the helper when it may: nothing is evicted meanwhile, and memory has a bound.
    pub(super) fn wait_for_flush(&mut self) {
        if let Some(pending) = self.pending.as_ref().filter(|_| self.waits_for_flush) {
            if pending.outcome.is_written().is_none() {
                self.flush_waits.add(1);
                pending.outcome.wait();
            }
            self.settle();
        }
    }

    /// Takes note of a frozen set that has been written, or of one that failed: its slots are dirty
    /// again.
    pub(super) fn settle(&mut self) {
        let written = match self.pending.as_ref().map(|pending| pending.outcome.is_written()) {
            None | Some(None) => return,
            Some(Some(written)) => written,
        };
        self.pending = None;
        self.arena.settled();
        let freed = self.chunks.settle(written);
        self.forget(&freed);
    }

    /// The number of the next look-up. When the header's bits run out all rows begin anew: once in
    /// half a billion batches.
    fn advance_epoch(&mut self) {
        self.epoch += 1;
        if self.epoch > EPOCH_MASK {
            for slot in self.chunks.used() {
                self.chunks.row_mut(slot)[HEADER] &= !EPOCH_MASK;
            }
            self.epoch = 1;
        }
    }

    /// Moves values of the arena together, at most so many bytes of them, and so frees the segments
    /// that had the most garbage.
    pub(super) fn compact_arena(&mut self, bytes_max: usize) {
        self.arena.choose_leaving(bytes_max);
        for slot in self.chunks.used() {
            for &handle in &self.writer.layout.handles {
                let value = self.chunks.row(slot)[handle];
                if value != NO_BYTES && self.arena.is_leaving(value) {
                    self.chunks.row_mut(slot)[handle] = self.arena.relocate(value);
                }
            }
        }
    }

    /// The slots that changed since the last snapshot or write-back, for tests.
    #[cfg(test)]
    pub(super) fn dirty_slots(&self) -> Vec<u32> {
        let bits =
            |chunk| ones(self.chunks.dirty_bits(chunk)).map(move |bit| (chunk * CHUNK_SLOTS) as u32 + bit);
        (0..self.chunks.chunk_count()).flat_map(bits).collect()
    }
}

/// The states of slots that the last look-up found.
pub struct Rows<'a> {
    chunks: &'a mut Chunks,
    arena: &'a mut Arena,
    state: usize,
}

impl Rows<'_> {
    /// The state words of a slot.
    #[inline]
    pub fn get(&self, slot: u32) -> &[u64] {
        &self.chunks.row(slot)[self.state..]
    }

    /// The state words of a slot that the last look-up found, to be changed. For any other slot
    /// call [`Rows::mark_changed`] too. Words of kind bytes are set by [`Rows::set_bytes`].
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> &mut [u64] {
        &mut self.chunks.row_mut(slot)[self.state..]
    }

    /// Says that the state of a slot changes.
    pub fn mark_changed(&mut self, slot: u32) {
        self.chunks.touch(slot);
    }

    /// The bytes in a word of kind bytes.
    #[inline]
    pub fn bytes(&self, slot: u32, word: usize) -> Option<&[u8]> {
        let handle = self.get(slot)[word];
        (handle != NO_BYTES).then(|| self.arena.get(handle))
    }

    /// Sets the bytes in a word of kind bytes.
    pub fn set_bytes(&mut self, slot: u32, word: usize, bytes: &[u8]) {
        self.arena.release(self.get(slot)[word]);
        let handle = self.arena.insert(bytes);
        self.get_mut(slot)[word] = handle;
    }
}
