//! The columnar state of one instance of an operator: the table in memory over its store.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef};

use super::arena::{Arena, NO_BYTES};
use super::chunks::Chunks;
#[cfg(test)]
use super::chunks::{CHUNK_SLOTS, ones};
use super::flush::{FrozenState, Outcome, Promise, RowWriter};
use super::index::Index;
use super::key::{ByteKeys, EncodedKeys, KeyCodec, Keys, Namespaced, StoreKeys, WordKeys};
use super::layout::{ColumnarSpec, DELETED, EPOCH_MASK, HEADER, Layout, OCCUPIED};
use super::look_up::{Finder, NO_SLOT, Touched, blank};
use crate::metrics::Counter;
use crate::operator::{OpenContext, OperatorSnapshot};
use crate::state::key_encoding::hash_keys;
use crate::state::{Family, KeyGroupRange, KvStore, StoreSite};
use crate::time::Micros;
use crate::{Error, Result};

/// Keys that one read of the store asks for together.
const READ_KEYS_MAX: usize = 8 * 1024;
/// First bytes of a handle's meta: whose format it is, and the version.
const META_PREFIX: &str = "columnar 1; ";

/// A frozen set that a helper thread is writing.
pub(super) struct Pending {
    outcome: Outcome,
    /// The frozen slots, a bitmap per chunk.
    pub(super) bits: Vec<u64>,
    /// Tombstones among them.
    deleted: Vec<u32>,
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
    tombstones: Vec<u32>,
    meta: Vec<u8>,
    encoded: EncodedKeys,
    missing: Vec<u32>,
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
        if let Some(handle) = cx.restored.keyed().find(|handle| handle.meta != meta.as_bytes()) {
            return Err(Error::user(format!(
                "the checkpoint holds another state for {}: {}; the job has: {meta}",
                info.uid,
                String::from_utf8_lossy(&handle.meta)
            )));
        }
        let in_path = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let job: String = info.job.chars().map(in_path).take(64).collect();
        let site = StoreSite {
            uid: &info.uid,
            subtask: info.subtask,
            key_groups,
            restored: cx.restored,
            storage: cx.storage.as_ref(),
            unique: format!("{job}-{}-{}-{}-{}", info.uid, info.subtask, info.generation, info.attempt),
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
            writer: RowWriter { layout, keys, store_keys, timer_offsets, timers_always: false },
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
            tombstones: Vec::new(),
            meta: meta.into_bytes(),
            encoded: EncodedKeys::default(),
            missing: Vec::new(),
        };
        if restored {
            state.read_stored_times()?;
        }
        Ok(state)
    }

    /// Finds or makes the slot of each row. `hashes` are the key hashes that travel with the batch;
    /// `namespaces` has one for each row where the state is namespaced, and is empty otherwise.
    /// What was found counts as changed. Slots of earlier look-ups are void.
    ///
    /// # Errors
    /// An external error of the store.
    pub fn look_up(
        &mut self,
        columns: &[ArrayRef],
        hashes: &[u64],
        namespaces: &[i64],
        touched: &mut Touched,
    ) -> Result<()> {
        self.settle();
        self.make_room(hashes.len())?;
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
            for slots in missing.chunks(READ_KEYS_MAX) {
                self.load(slots, touched)?;
            }
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
            layout: &self.writer.layout,
            epoch: self.epoch,
            revive,
        };
        if self.writer.layout.namespaced {
            finder.find(&Namespaced { keys, hashes, namespaces }, hashes.len(), touched, missing);
        } else {
            finder.find(&keys, hashes.len(), touched, missing);
        }
    }

    /// Reads the states of new slots from the store.
    fn load(&mut self, slots: &[u32], touched: &mut Touched) -> Result<()> {
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
        for (&slot, value) in slots.iter().zip(values) {
            match value {
                Some(value) => {
                    let row = self.chunks.row_mut(slot);
                    self.writer.decode_value(&value, row, &mut self.arena)?;
                    self.chunks.set_stored(slot);
                    touched.loaded.push(slot);
                }
                None => touched.created.push(slot),
            }
        }
        Ok(())
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
        slot < self.chunks.slot_end() && self.chunks.row(slot)[HEADER] & (OCCUPIED | DELETED) == OCCUPIED
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
            if self.chunks.is_stored(slot) {
                blank(&mut self.chunks, &mut self.arena, &self.writer.layout, slot);
                self.chunks.row_mut(slot)[HEADER] |= DELETED;
                self.tombstones.push(slot);
            } else {
                self.free(slot);
            }
        }
    }

    /// Forgets a slot.
    pub(super) fn free(&mut self, slot: u32) {
        let row = self.chunks.row(slot);
        let tag = (row[HEADER] >> 32) as u32;
        for &handle in &self.writer.layout.handles {
            self.arena.release(row[handle]);
        }
        self.index.remove(tag, slot);
        self.chunks.release(slot);
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
        let (rows, bits) = self.chunks.freeze();
        let (promise, outcome) = Promise::new();
        let deleted = std::mem::take(&mut self.tombstones);
        self.pending = Some(Pending { outcome, bits, deleted, copied_bytes: rows.copied_bytes() });
        let frozen = FrozenState {
            rows,
            arena: self.arena.clone(),
            writer: self.writer.clone(),
            snapshotter: self.store.snapshotter(),
            key_groups: self.key_groups,
            meta: self.meta.clone(),
            promise,
        };
        Ok(OperatorSnapshot { parts: Vec::new(), tasks: vec![Box::new(move |site| frozen.run(site))] })
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
        let Some(pending) = self.pending.take() else { return };
        self.writer.timers_always = !written;
        if written {
            for slot in pending.deleted {
                let deleted = self.chunks.row(slot)[HEADER] & (OCCUPIED | DELETED) == OCCUPIED | DELETED;
                if deleted && !self.chunks.is_dirty(slot) {
                    self.free(slot);
                }
            }
        } else {
            for (chunk, &bits) in pending.bits.iter().enumerate().filter(|(_, bits)| **bits != 0) {
                self.chunks.mark_dirty(chunk, bits);
            }
            self.tombstones.extend(pending.deleted);
        }
    }

    /// The number of the next look-up. When the header's bits run out all rows begin anew: once in
    /// half a billion batches.
    fn advance_epoch(&mut self) {
        self.epoch += 1;
        if self.epoch > EPOCH_MASK {
            for slot in 0..self.chunks.slot_end() {
                self.chunks.row_mut(slot)[HEADER] &= !EPOCH_MASK;
            }
            self.epoch = 1;
        }
    }

    /// Copies what is alive in the arena to a new one.
    pub(super) fn compact_arena(&mut self) {
        let mut arena = Arena::default();
        for slot in 0..self.chunks.slot_end() {
            if !self.chunks.is_occupied(slot) {
                continue;
            }
            let row = self.chunks.row_mut(slot);
            for &handle in &self.writer.layout.handles {
                if row[handle] != NO_BYTES {
                    row[handle] = arena.insert(self.arena.get(row[handle]));
                }
            }
        }
        self.arena = arena;
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
        self.chunks.row_dirty(slot);
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
