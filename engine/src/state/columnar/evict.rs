//! Keeping the table within its bytes: old keys are written if they are dirty and leave; dirty
//! keys are written back between barriers when there are too many of them; values that are dropped
//! leave garbage, which is compacted.

use super::chunks::CHUNK_SLOTS;
use super::frozen_rows::ones;
use super::layout::{EPOCH_MASK, HEADER};
use super::slot_state::{Event, RowWrite, SlotState};
use super::state::ColumnarState;
use crate::Result;

/// Index bytes that a key costs, on average over the index's growth.
const INDEX_BYTES_PER_KEY: usize = 20;
/// An eviction frees this share of the bytes, so that it is rare.
const EVICT_SHARE: usize = 8;
/// A compaction moves at most this share of the bytes at a time; so much stays free for it.
const COMPACT_SHARE: usize = 8;
/// Garbage that is worth a compaction though there is room: more than the values, and so much.
const GARBAGE_BYTES_MIN: usize = 1024 * 1024;
/// Where there is no room, garbage of this share of the values is; and half of it may stay.
const GARBAGE_SHARE: usize = 8;
/// Rows whose age is looked at to find out what is old.
const AGE_SAMPLES: usize = 512;
/// Rows, and about how many bytes, that one write-back or one write of an eviction takes.
const WRITE_ROWS_MAX: usize = 8 * 1024;
const WRITE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of the keys that fit, this share may be dirty before they are written back.
const DIRTY_SHARE: usize = 4;
/// A look-up takes at most this share of the bytes, or so many.
const LOOK_UP_SHARE: usize = 8;
const LOOK_UP_BYTES_MIN: usize = 256 * 1024;
/// Rows that are looked up at once while nobody knows how long the store's values are.
const LOOK_UP_ROWS_FIRST: usize = 256;

impl ColumnarState {
    /// Bytes that one key takes, without what its handles hold.
    fn bytes_per_key(&self) -> usize {
        self.chunks.stride() * 8 + INDEX_BYTES_PER_KEY
    }

    /// Bytes that a key takes on average.
    fn mean_bytes(&self) -> usize {
        self.bytes_per_key() + self.arena.live_bytes() / self.chunks.live().max(1)
    }

    /// Bytes that the key of a slot takes, with its state.
    pub fn key_bytes(&self, slot: u32) -> usize {
        let row = self.chunks.row(slot);
        let held = self.writer.layout.handles.iter().map(|&handle| self.arena.get(row[handle]).len());
        self.bytes_per_key() + held.sum::<usize>()
    }

    /// Bytes that the table keeps alive: rows, index, values with their garbage, and what a frozen
    /// set that is being written holds beside them.
    pub fn bytes(&self) -> usize {
        let frozen =
            self.pending.as_ref().map_or(0, |pending| pending.copied_bytes + self.chunks.copied_bytes());
        self.chunks.bytes() + self.index.bytes() + self.arena.bytes() + frozen
    }

    /// How many rows of a batch to look up at once, so that keys and states of one look-up are a
    /// small part of the table: all but where they are long. `bytes` are those of the batch.
    pub fn rows_at_once(&self, rows: usize, bytes: usize) -> usize {
        let handles = self.writer.layout.handles.len();
        if handles == 0 {
            return rows;
        }
        let stored = match self.stored_bytes {
            None if self.store_may_hold => return rows.min(LOOK_UP_ROWS_FIRST),
            stored => stored.unwrap_or(0),
        };
        let per_row = bytes / rows.max(1) + self.mean_bytes().max(self.bytes_per_key() + stored);
        ((self.bytes_max / LOOK_UP_SHARE).max(LOOK_UP_BYTES_MIN) / per_row).clamp(1, rows.max(1))
    }

    /// What may be kept alive now: a compaction needs room, and is not while a frozen set reads the
    /// arena's segments.
    fn bytes_bound(&self) -> usize {
        let compacts = !self.writer.layout.handles.is_empty() && self.pending.is_none();
        self.bytes_max - if compacts { self.bytes_max / COMPACT_SHARE } else { 0 }
    }

    /// Makes room for `rows` new keys, and so many bytes of them and their states. While a frozen set
    /// is being written only clean keys can leave; when they do not suffice the task waits, and where
    /// it may not the bound is passed.
    pub(super) fn make_room(&mut self, rows: usize, bytes: usize) -> Result<()> {
        let incoming = self.chunks.growth_bytes(rows) + self.index.growth_bytes(rows) + bytes;
        self.shrink(incoming, 0)?;
        let dirty_max = self.bytes_max / DIRTY_SHARE;
        if self.pending.is_none() && self.chunks.dirty_count() * self.mean_bytes() > dirty_max {
            let share = WRITE_BYTES_MAX / self.mean_bytes();
            self.write_back(share.min(WRITE_ROWS_MAX).max(rows))?;
        }
        Ok(())
    }

    /// As [`ColumnarState::make_room`], in the middle of a look-up: what it found stays.
    pub(super) fn make_room_beside_found(&mut self) -> Result<()> {
        self.shrink(0, 1)
    }

    /// Frees memory until so many bytes more fit; only of keys of this age or older.
    fn shrink(&mut self, incoming: usize, age_min: u64) -> Result<()> {
        let garbage = self.arena.garbage_bytes();
        if garbage > GARBAGE_BYTES_MIN && garbage > self.arena.live_bytes() {
            self.compact();
        }
        if self.excess(incoming) == 0 {
            return Ok(());
        }
        if garbage > self.arena.live_bytes() / GARBAGE_SHARE {
            self.compact();
        }
        let excess = self.excess(incoming);
        if excess == 0 {
            return Ok(());
        }
        let wanted = excess.max(self.bytes_max / EVICT_SHARE);
        let evicted = self.evict(wanted, self.old_age().max(age_min))?;
        if evicted < wanted / 2 && self.excess(incoming) > 0 {
            self.wait_for_flush();
            self.evict(wanted - evicted, age_min)?;
        }
        if self.excess(incoming) > 0 && !self.writer.layout.handles.is_empty() {
            self.wait_for_flush();
            self.compact();
        }
        Ok(())
    }

    fn excess(&self, incoming: usize) -> usize {
        (self.bytes() + incoming).saturating_sub(self.bytes_bound())
    }

    /// Frees most of the garbage. Not while a frozen set reads the segments, for then what is moved is
    /// there twice.
    fn compact(&mut self) {
        while self.pending.is_none()
            && self.arena.garbage_bytes() > self.arena.live_bytes() / (2 * GARBAGE_SHARE)
        {
            let before = self.arena.bytes();
            self.compact_arena(self.bytes_max / COMPACT_SHARE);
            if self.arena.bytes() >= before {
                break;
            }
        }
    }

    fn age(&self, header: u64) -> u64 {
        self.epoch.wrapping_sub(header & EPOCH_MASK) & EPOCH_MASK
    }

    /// An age that about a quarter of the keys have reached.
    fn old_age(&self) -> u64 {
        let end = self.chunks.slot_end() as usize;
        let step = (end / AGE_SAMPLES).max(1);
        let slots = (0..end as u32).step_by(step).filter(|&slot| self.chunks.state(slot) != SlotState::FREE);
        let mut ages: Vec<u64> = slots.map(|slot| self.age(self.chunks.row(slot)[HEADER])).collect();
        ages.sort_unstable_by(|one, other| other.cmp(one));
        ages.get(ages.len() / 4).copied().unwrap_or(0)
    }

    /// Evicts keys of about `wanted` bytes (and the rest of a chunk) that are `age_min` or older, from
    /// where the last eviction ended. Answers how many bytes they had.
    fn evict(&mut self, wanted: usize, age_min: u64) -> Result<usize> {
        let mut evicted = 0;
        let mut leaving: Vec<u32> = Vec::new();
        let sparse = self.chunks.is_sparse();
        for _ in 0..self.chunks.chunk_count() {
            if evicted >= wanted {
                break;
            }
            self.hand = (self.hand + 1) % self.chunks.chunk_count();
            let before = leaving.len();
            // Where most rows are free, chunks that are nearly so go whole, and their memory with them.
            let whole = sparse && self.chunks.used_bits(self.hand).count_ones() as usize * 2 < CHUNK_SLOTS;
            self.choose(self.hand, if whole { age_min.min(1) } else { age_min }, &mut leaving);
            evicted += leaving[before..].iter().map(|&slot| self.key_bytes(slot)).sum::<usize>();
            if leaving.len() + CHUNK_SLOTS > WRITE_ROWS_MAX {
                self.leave(&mut leaving)?;
            }
        }
        self.leave(&mut leaving)?;
        Ok(evicted)
    }

    fn choose(&self, chunk: usize, age_min: u64, leaving: &mut Vec<u32>) {
        let blocked = match self.pending {
            Some(_) => self.chunks.frozen_bits(chunk) | self.chunks.dirty_bits(chunk),
            None => 0,
        };
        let first = (chunk * CHUNK_SLOTS) as u32;
        let slots = ones(self.chunks.used_bits(chunk) & !blocked).map(|bit| first + bit);
        leaving.extend(slots.filter(|&slot| self.age(self.chunks.row(slot)[HEADER]) >= age_min));
    }

    /// Writes what is dirty among `leaving`, and frees all of it.
    fn leave(&mut self, leaving: &mut Vec<u32>) -> Result<()> {
        self.write(leaving)?;
        for slot in leaving.drain(..) {
            if self.chunks.state(slot) == SlotState::FREE {
                // A deleted key, whose delete has been written.
                continue;
            }
            self.remember_stored(self.writer.layout.namespace(self.chunks.row(slot)));
            self.store_may_hold = true;
            self.happen(slot, Event::Evict);
        }
        Ok(())
    }

    /// Writes up to `rows_max` dirty rows back (and the rest of a chunk), from where the last
    /// write-back ended.
    fn write_back(&mut self, rows_max: usize) -> Result<()> {
        let mut dirty = Vec::new();
        for _ in 0..self.chunks.chunk_count() {
            if dirty.len() >= rows_max {
                break;
            }
            self.write_hand = (self.write_hand + 1) % self.chunks.chunk_count();
            let first = (self.write_hand * CHUNK_SLOTS) as u32;
            dirty.extend(ones(self.chunks.dirty_bits(self.write_hand)).map(|bit| first + bit));
        }
        self.write(&dirty)
    }

    /// Writes what is dirty among these slots. The deleted ones are free afterwards, the others
    /// clean.
    fn write(&mut self, slots: &[u32]) -> Result<()> {
        let mut rows = Vec::new();
        let mut writes: Vec<RowWrite> = Vec::new();
        let mut written = Vec::new();
        for &slot in slots {
            if let Some(write) = self.chunks.state(slot).write() {
                rows.extend_from_slice(self.chunks.row(slot));
                writes.push(write);
                written.push(slot);
            }
        }
        if written.is_empty() {
            return Ok(());
        }
        let store = self.store.as_mut();
        self.writer.for_shares(&self.arena, &rows, &writes, |ops| store.write(ops))?;
        for slot in written {
            self.happen(slot, Event::Write);
        }
        Ok(())
    }
}
