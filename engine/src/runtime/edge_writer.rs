//! One outgoing edge of a task: splits batches over the targets' channels, keeps small shares
//! back so that batches stay large at any fan-out, and holds what full channels refused.
//!
//! Costs per row of a hash edge: one modulo (one `and`, when the key groups are a power of two), one
//! look into a table, one index push, and one `take` per column. Rows are never sorted. Shares of
//! fewer than [`SHARE_ROWS_MIN`] rows wait, for at most [`BATCHES_KEPT_MAX`] batches, whoever gets
//! their rows; barrier, end and sleep flush them. A watermark waits with the rows that it follows,
//! for a later watermark is the weaker promise.
//!
//! What waits here or in a channel keeps little more alive than its rows, and a batch that is too
//! large to wait is cut: so each target holds its channel's bytes, a share, and what one step of the
//! chain emitted.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::datatypes::SchemaRef;

use super::{Channel, Element, TARGET_BYTES};
use crate::checkpoint::Barrier;
use crate::graph::Partitioner;
use crate::operator::Waker;
use crate::record::Batch;
use crate::state::KeyGroup;
use crate::time::Watermark;
use crate::{Error, Result};

/// A share of at least so many rows leaves at once.
const SHARE_ROWS_MIN: usize = 1_024;
/// So does one of at least this part of the bytes that a batch may have.
const SHARE_BYTES_PART: usize = 8;
/// Shares wait for at most so many batches.
const BATCHES_KEPT_MAX: usize = 8;

struct Target {
    channel: Arc<Channel>,
    kept: Vec<Batch>,
    kept_rows: usize,
    kept_bytes: usize,
    /// What the channel refused, and what must not overtake it.
    outbox: VecDeque<Element>,
}

/// The writing end of an edge.
pub struct EdgeWriter {
    partitioner: Partitioner,
    /// The target of each key group.
    owners: Vec<u32>,
    schema: SchemaRef,
    targets: Vec<Target>,
    /// Bytes that a batch may keep alive where it waits.
    bytes_max: usize,
    /// Batches since the oldest row that is kept back.
    batches_kept: usize,
    watermark_kept: Option<Watermark>,
    next: usize,
    indices: Vec<Vec<u32>>,
}

impl EdgeWriter {
    /// An edge to `channels`, one for each target subtask that this task sends to.
    pub fn new(
        partitioner: Partitioner,
        max_parallelism: u32,
        schema: SchemaRef,
        channels: Vec<Arc<Channel>>,
        waker: &Waker,
        first: usize,
    ) -> EdgeWriter {
        let indices = vec![Vec::new(); channels.len()];
        let bounds = channels.iter().map(|channel| channel.bounds().bytes_max);
        let bytes_max = bounds.min().map_or(TARGET_BYTES, |bytes_max| bytes_max.min(TARGET_BYTES));
        let targets = channels
            .into_iter()
            .map(|channel| {
                channel.set_sender(waker.clone());
                Target { channel, kept: Vec::new(), kept_rows: 0, kept_bytes: 0, outbox: VecDeque::new() }
            })
            .collect::<Vec<_>>();
        let next = first % targets.len().max(1);
        let parallelism = targets.len() as u32;
        let groups = if partitioner == Partitioner::Hash { 0..max_parallelism } else { 0..0 };
        let groups = groups.map(|group| KeyGroup(group as u16));
        EdgeWriter {
            partitioner,
            owners: groups.map(|group| group.subtask(parallelism, max_parallelism)).collect(),
            schema,
            targets,
            bytes_max,
            batches_kept: 0,
            watermark_kept: None,
            next,
            indices,
        }
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// An internal error when a hash edge gets a batch without key hashes.
    pub fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.bytes() <= self.bytes_max {
            return self.write_piece(batch);
        }
        batch.cut(self.bytes_max)?.into_iter().try_for_each(|piece| self.write_piece(piece))
    }

    fn write_piece(&mut self, batch: Batch) -> Result<()> {
        if self.partitioner == Partitioner::Hash && self.targets.len() > 1 {
            return self.write_hashed(&batch);
        }
        self.release_watermark();
        let element = Element::Batch(batch.compacted()?);
        if self.partitioner == Partitioner::Broadcast {
            self.targets.iter_mut().for_each(|target| target.send(element.clone()));
        } else {
            self.targets[self.next].send(element);
            self.next = (self.next + 1) % self.targets.len();
        }
        Ok(())
    }

    fn write_hashed(&mut self, batch: &Batch) -> Result<()> {
        let hashes = batch
            .key_hashes()
            .ok_or_else(|| Error::internal("a hash edge got a batch without key hashes"))?;
        for indices in &mut self.indices {
            indices.clear();
        }
        let groups = self.owners.len() as u64;
        if groups.is_power_of_two() {
            deal(hashes.values(), &mut self.indices, |hash| self.owners[(hash & (groups - 1)) as usize]);
        } else {
            deal(hashes.values(), &mut self.indices, |hash| self.owners[(hash % groups) as usize]);
        }
        for (target, indices) in self.targets.iter_mut().zip(&mut self.indices) {
            if indices.is_empty() {
                continue;
            }
            let share = if indices.len() == batch.row_count() {
                batch.clone()
            } else {
                let taken = UInt32Array::from(std::mem::take(indices));
                let share = batch.take(&taken)?;
                *indices = taken.into_parts().1.into_inner().into_vec().unwrap_or_default();
                share
            };
            target.keep(share.compacted()?);
            if target.kept_rows >= SHARE_ROWS_MIN || target.kept_bytes >= self.bytes_max / SHARE_BYTES_PART {
                target.flush(&self.schema)?;
            }
        }
        if self.targets.iter().all(|target| target.kept_rows == 0) {
            self.batches_kept = 0;
            self.release_watermark();
            return Ok(());
        }
        self.batches_kept += 1;
        if self.batches_kept >= BATCHES_KEPT_MAX { self.flush() } else { Ok(()) }
    }

    /// Sends what was kept back. Called before the task sleeps, for whatever reason.
    ///
    /// # Errors
    /// An internal error from joining batches.
    pub fn flush(&mut self) -> Result<()> {
        self.batches_kept = 0;
        for target in &mut self.targets {
            target.flush(&self.schema)?;
        }
        self.release_watermark();
        Ok(())
    }

    /// Sends a watermark behind the rows before it.
    pub fn watermark(&mut self, watermark: Watermark) {
        self.watermark_kept = Some(watermark);
        if self.batches_kept == 0 {
            self.release_watermark();
        }
    }

    /// The watermark may only pass when no row before it is kept back.
    fn release_watermark(&mut self) {
        if self.targets.iter().any(|target| target.kept_rows > 0) {
            return;
        }
        if let Some(watermark) = self.watermark_kept.take() {
            for target in &mut self.targets {
                target.send(Element::Watermark(watermark));
            }
        }
    }

    /// Sends a control element to all targets, behind everything before it.
    ///
    /// # Errors
    /// An internal error from joining batches.
    pub fn control(&mut self, element: &Element) -> Result<()> {
        self.flush()?;
        for target in &mut self.targets {
            target.send(element.clone());
        }
        Ok(())
    }

    /// Sends a barrier to all targets.
    ///
    /// # Errors
    /// An internal error from joining batches.
    pub fn barrier(&mut self, barrier: Barrier) -> Result<()> {
        self.control(&Element::Barrier(barrier))
    }

    /// Tries to send what was refused. Returns whether everything is sent.
    pub fn drain(&mut self) -> bool {
        let mut drained = true;
        for target in &mut self.targets {
            drained &= target.drain();
        }
        drained
    }

    /// Whether something that was refused waits for room.
    pub fn is_blocked(&self) -> bool {
        self.targets.iter().any(|target| !target.outbox.is_empty())
    }
}

/// Deals the rows over the targets.
fn deal(hashes: &[u64], indices: &mut [Vec<u32>], target: impl Fn(u64) -> u32) {
    for (row, &hash) in hashes.iter().enumerate() {
        indices[target(hash) as usize].push(row as u32);
    }
}

impl Target {
    fn send(&mut self, element: Element) {
        if self.outbox.is_empty() {
            if let Some(refused) = self.channel.try_send(element) {
                self.outbox.push_back(refused);
            }
        } else {
            self.outbox.push_back(element);
        }
    }

    /// Keeps rows back.
    fn keep(&mut self, share: Batch) {
        self.kept_rows += share.row_count();
        self.kept_bytes += share.bytes();
        self.kept.push(share);
    }

    fn flush(&mut self, schema: &SchemaRef) -> Result<()> {
        if self.kept_rows > 0 {
            let joined = Batch::concat(schema, &self.kept)?;
            self.kept.clear();
            (self.kept_rows, self.kept_bytes) = (0, 0);
            self.send(Element::Batch(joined));
        }
        Ok(())
    }

    fn drain(&mut self) -> bool {
        while let Some(element) = self.outbox.pop_front() {
            if let Some(refused) = self.channel.try_send(element) {
                self.outbox.push_front(refused);
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
#[path = "edge_writer_tests.rs"]
mod tests;
