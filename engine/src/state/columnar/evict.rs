//! Keeping the table within its bytes: old keys are written if they are dirty and leave; dirty
//! keys are written back between barriers when there are too many of them.

use super::chunks::{CHUNK_SLOTS, ones};
use super::layout::{DELETED, EPOCH_MASK, HEADER, OCCUPIED};
use super::state::ColumnarState;
use crate::Result;

/// Index bytes that a key costs, on average over the index's growth.
const INDEX_BYTES_PER_KEY: usize = 20;
/// An eviction frees this share of the keys, so that it is rare.
const EVICT_SHARE: usize = 8;
/// Rows whose age is looked at to find out what is old.
const AGE_SAMPLES: usize = 512;
/// Rows that one write-back or one write of an eviction takes.
const WRITE_ROWS_MAX: usize = 8 * 1024;
/// Of the keys that fit, this share may be dirty before they are written back.
const DIRTY_SHARE: usize = 4;

impl ColumnarState {
    /// Bytes that one key takes, without what its handles hold.
    fn bytes_per_key(&self) -> usize {
        self.chunks.stride() * 8 + INDEX_BYTES_PER_KEY
    }

    /// Bytes that the keys in memory take, with the index, and with what a frozen set that is being
    /// written takes beside them.
    pub fn bytes(&self) -> usize {
        let frozen =
            self.pending.as_ref().map_or(0, |pending| pending.copied_bytes + self.chunks.copied_bytes());
        self.chunks.live() * self.bytes_per_key() + self.arena.bytes() + frozen
    }

    /// Makes room for `rows` new keys. While a frozen set is being written only clean keys can
    /// leave; when they do not suffice the task waits, and where it may not the bound is passed.
    pub(super) fn make_room(&mut self, rows: usize) -> Result<()> {
        if self.arena.wants_compaction() {
            self.compact_arena();
        }
        let incoming = rows * self.bytes_per_key();
        if self.bytes() + incoming > self.bytes_max {
            let target = rows.max(self.chunks.live() / EVICT_SHARE);
            let age_min = self.old_age();
            let evicted = self.evict(target, age_min)?;
            if evicted < target / 2 && self.bytes() + incoming > self.bytes_max {
                self.wait_for_flush();
                self.evict(target - evicted, 0)?;
            }
        }
        let dirty_max = self.bytes_max / self.bytes_per_key() / DIRTY_SHARE;
        if self.pending.is_none() && self.chunks.dirty_count() > dirty_max {
            self.write_back(WRITE_ROWS_MAX.max(rows))?;
        }
        Ok(())
    }

    fn age(&self, header: u64) -> u64 {
        self.epoch.wrapping_sub(header & EPOCH_MASK) & EPOCH_MASK
    }

    /// An age that about a quarter of the keys have reached.
    fn old_age(&self) -> u64 {
        let end = self.chunks.slot_end() as usize;
        let step = (end / AGE_SAMPLES).max(1);
        let headers = (0..end).step_by(step).map(|slot| self.chunks.row(slot as u32)[HEADER]);
        let mut ages: Vec<u64> =
            headers.filter(|header| header & OCCUPIED != 0).map(|header| self.age(header)).collect();
        ages.sort_unstable_by(|one, other| other.cmp(one));
        ages.get(ages.len() / 4).copied().unwrap_or(0)
    }

    /// Evicts up to `target` keys (and the rest of a chunk) that are `age_min` or older, from where
    /// the last eviction ended. Answers how many.
    fn evict(&mut self, target: usize, age_min: u64) -> Result<usize> {
        let mut evicted = 0;
        let mut leaving: Vec<u32> = Vec::new();
        for _ in 0..self.chunks.chunk_count() {
            if evicted + leaving.len() >= target {
                break;
            }
            self.hand = (self.hand + 1) % self.chunks.chunk_count();
            self.choose(self.hand, age_min, &mut leaving);
            if leaving.len() + CHUNK_SLOTS > WRITE_ROWS_MAX {
                evicted += self.leave(&mut leaving)?;
            }
        }
        evicted += self.leave(&mut leaving)?;
        Ok(evicted)
    }

    fn choose(&self, chunk: usize, age_min: u64, leaving: &mut Vec<u32>) {
        let frozen = self.pending.as_ref().and_then(|pending| pending.bits.get(chunk)).copied().unwrap_or(0);
        let blocked = if self.pending.is_some() { frozen | self.chunks.dirty_bits(chunk) } else { 0 };
        for bit in ones(!blocked) {
            let slot = (chunk * CHUNK_SLOTS) as u32 + bit;
            if slot >= self.chunks.slot_end() {
                break;
            }
            let header = self.chunks.row(slot)[HEADER];
            if header & OCCUPIED != 0 && self.age(header) >= age_min {
                leaving.push(slot);
            }
        }
    }

    /// Writes what is dirty among `leaving`, and frees all of it.
    fn leave(&mut self, leaving: &mut Vec<u32>) -> Result<usize> {
        let dirty: Vec<u32> = leaving.iter().copied().filter(|&slot| self.chunks.is_dirty(slot)).collect();
        self.write(&dirty)?;
        let count = leaving.len();
        for slot in leaving.drain(..) {
            let namespace = self.writer.layout.namespace(self.chunks.row(slot));
            if self.chunks.row(slot)[HEADER] & DELETED == 0 {
                self.remember_stored(namespace);
                self.store_may_hold = true;
            }
            self.free(slot);
        }
        Ok(count)
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
        self.write(&dirty)?;
        for slot in dirty {
            if self.chunks.row(slot)[HEADER] & DELETED != 0 {
                self.free(slot);
            }
        }
        Ok(())
    }

    /// Writes rows to the store; they are clean afterwards.
    fn write(&mut self, slots: &[u32]) -> Result<()> {
        if slots.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::with_capacity(slots.len() * self.chunks.stride());
        let mut stored = Vec::with_capacity(slots.len());
        for &slot in slots {
            rows.extend_from_slice(self.chunks.row(slot));
            stored.push(self.chunks.is_stored(slot));
        }
        let ops = self.writer.ops(&self.arena, &rows, &stored)?;
        self.store.write(&mut ops.into_iter())?;
        for &slot in slots {
            self.chunks.clear_dirty(slot);
            self.chunks.set_stored(slot);
        }
        Ok(())
    }
}
