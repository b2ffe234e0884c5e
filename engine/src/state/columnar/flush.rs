//! Writing rows to the store, by the task between barriers and by the helper thread after one.

use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::arena::{Arena, NO_BYTES};
use super::frozen_rows::FrozenRows;
use super::key::{EncodedKeys, KeyCodec, StoreKeys};
use super::layout::{KEY, Layout, WordKind};
use super::slot_state::RowWrite;
use crate::checkpoint::{SnapshotPart, SnapshotSite, SnapshotTask};
use crate::state::{Family, KeyGroupRange, KvOp, KvSnapshotter};
use crate::time::Micros;
use crate::{Error, Result};

/// Rows that are encoded, put into key order and written together by the helper thread.
pub(super) const SHARE_ROWS: usize = 16 * 1024;

/// About so many bytes are encoded and written together, by either thread: a write batch of RocksDB
/// lies in memory twice, and its memtable takes it whole.
const SHARE_BYTES_MAX: usize = 1024 * 1024;

/// What a write takes beside the bytes of its key and value.
const WRITE_BYTES: usize = 96;

/// The first byte of a value: the version of the row's encoding.
const VALUE_VERSION: u8 = 1;

/// What both threads need to know to write rows.
#[derive(Clone)]
pub(super) struct RowWriter {
    pub(super) layout: Layout,
    pub(super) keys: KeyCodec,
    pub(super) store_keys: StoreKeys,
    pub(super) timer_offsets: Vec<Micros>,
    pub(super) share_bytes: usize,
}

impl RowWriter {
    pub(super) fn new(
        layout: Layout,
        keys: KeyCodec,
        store_keys: StoreKeys,
        timer_offsets: Vec<Micros>,
    ) -> RowWriter {
        RowWriter { layout, keys, store_keys, timer_offsets, share_bytes: SHARE_BYTES_MAX }
    }

    /// Gives the writes that bring the store up to these rows, in shares of bounded bytes; what
    /// belongs to one row is in one share.
    pub(super) fn for_shares(
        &self,
        arena: &Arena,
        rows: &[u64],
        writes: &[RowWrite],
        mut give: impl FnMut(&mut dyn Iterator<Item = KvOp>) -> Result<()>,
    ) -> Result<()> {
        let stride = self.layout.stride;
        let mut start = 0;
        while start < writes.len() {
            let (mut end, mut bytes) = (start, 0);
            while end < writes.len() && bytes < self.share_bytes {
                bytes += self.write_bytes(arena, &rows[end * stride..(end + 1) * stride]);
                end += 1;
            }
            let ops = self.ops(arena, &rows[start * stride..end * stride], &writes[start..end])?;
            give(&mut ops.into_iter())?;
            start = end;
        }
        Ok(())
    }

    /// About how many bytes the writes of a row take.
    fn write_bytes(&self, arena: &Arena, row: &[u64]) -> usize {
        let handles = self.layout.handles.iter().map(|&handle| arena.get(row[handle]).len());
        let key_copies = if self.keys.is_word() { 0 } else { self.timer_offsets.len() };
        let keys = if key_copies > 0 { arena.get(row[KEY]).len() * key_copies } else { 0 };
        handles.sum::<usize>() + keys + WRITE_BYTES * (1 + self.timer_offsets.len())
    }

    /// The writes that bring the store up to these rows, in key order within each family.
    fn ops(&self, arena: &Arena, rows: &[u64], writes: &[RowWrite]) -> Result<Vec<KvOp>> {
        let stride = self.layout.stride;
        let mut keys = EncodedKeys::default();
        self.keys.encode_rows(rows.chunks_exact(stride), arena, &mut keys)?;
        let mut states = Vec::with_capacity(writes.len());
        let mut timers = Vec::new();
        for (index, (row, &write)) in rows.chunks_exact(stride).zip(writes).enumerate() {
            let (key, namespace) = (keys.get(index), self.layout.namespace(row));
            let deleted = write == RowWrite::Delete;
            let mut state_key = Vec::with_capacity(key.len() + 11);
            self.store_keys.state(key, namespace, &mut state_key);
            let value = if deleted { None } else { Some(self.encode_value(row, arena)) };
            states.push((state_key, value));
            // A row's timers never change: they are written with it first, and deleted with it.
            if write != RowWrite::Put {
                for &offset in &self.timer_offsets {
                    let mut timer = Vec::with_capacity(key.len() + 18);
                    self.store_keys.timer(namespace.saturating_add(offset), key, namespace, &mut timer);
                    timers.push((timer, deleted));
                }
            }
        }
        states.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        timers.sort_unstable();
        let states = states.into_iter().map(|(key, value)| match value {
            Some(value) => KvOp::Put(Family::State, key, value),
            None => KvOp::Delete(Family::State, key),
        });
        let timers = timers.into_iter().map(|(key, deleted)| {
            if deleted {
                KvOp::Delete(Family::Timers, key)
            } else {
                KvOp::Put(Family::Timers, key, Vec::new())
            }
        });
        Ok(states.chain(timers).collect())
    }

    fn encode_value(&self, row: &[u64], arena: &Arena) -> Vec<u8> {
        let mut value = Vec::with_capacity(1 + 8 * self.layout.words.len());
        value.push(VALUE_VERSION);
        for (kind, &word) in self.layout.words.iter().zip(&row[self.layout.state..]) {
            match kind {
                WordKind::Plain => value.extend_from_slice(&word.to_le_bytes()),
                WordKind::Bytes if word == NO_BYTES => value.push(0),
                WordKind::Bytes => {
                    let bytes = arena.get(word);
                    value.push(1);
                    value.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                    value.extend_from_slice(bytes);
                }
            }
        }
        value
    }

    /// Fills the state words of a blank row from a value of the store.
    pub(super) fn decode_value(&self, value: &[u8], row: &mut [u64], arena: &mut Arena) -> Result<()> {
        let damaged = || Error::internal("a stored row of columnar state does not decode");
        let mut rest = match value.split_first() {
            Some((&VALUE_VERSION, rest)) => rest,
            Some((version, _)) => {
                return Err(Error::damaged(format!("stored row has unknown version {version}")));
            }
            None => return Err(damaged()),
        };
        for (kind, word) in self.layout.words.iter().zip(&mut row[self.layout.state..]) {
            if *kind == WordKind::Plain {
                let (bytes, tail) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
                *word = u64::from_le_bytes(*bytes);
                rest = tail;
                continue;
            }
            let (present, tail) = rest.split_first().ok_or_else(damaged)?;
            rest = tail;
            if *present == 1 {
                let (length, tail) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
                let (bytes, tail) =
                    tail.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
                *word = arena.insert(bytes);
                rest = tail;
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(damaged()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Pending,
    Written,
    Failed,
}

type Shared = Arc<(Mutex<Progress>, Condvar)>;

/// How the writing of a frozen set goes; the task's end.
pub(super) struct Outcome(Shared);

impl Outcome {
    /// `None` while the helper is at it; then whether it succeeded.
    pub(super) fn is_written(&self) -> Option<bool> {
        match *self.0.0.lock() {
            Progress::Pending => None,
            progress => Some(progress == Progress::Written),
        }
    }

    /// Waits until the helper is done.
    pub(super) fn wait(&self) {
        let mut progress = self.0.0.lock();
        while *progress == Progress::Pending {
            self.0.1.wait(&mut progress);
        }
    }
}

/// The helper's end: says `failed` when it is dropped before it said `written`, so that a snapshot
/// task that is never run gives its rows back too.
pub(super) struct Promise(Shared);

impl Promise {
    pub(super) fn new() -> (Promise, Outcome) {
        let shared = Arc::new((Mutex::new(Progress::Pending), Condvar::new()));
        (Promise(shared.clone()), Outcome(shared))
    }

    fn settle(&self, to: Progress) {
        let mut progress = self.0.0.lock();
        if *progress == Progress::Pending {
            *progress = to;
            self.0.1.notify_all();
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.settle(Progress::Failed);
    }
}

/// What was frozen at a barrier, on its way to the store and the checkpoint.
pub(super) struct FrozenState {
    pub(super) rows: FrozenRows,
    pub(super) arena: Arena,
    pub(super) writer: RowWriter,
    pub(super) snapshotter: Box<dyn KvSnapshotter>,
    pub(super) key_groups: KeyGroupRange,
    pub(super) meta: Vec<u8>,
    pub(super) promise: Promise,
}

impl FrozenState {
    /// Writes the rows and takes the snapshot; what is left is to upload it. On a helper thread.
    pub(super) fn run(self, site: &SnapshotSite) -> Result<SnapshotTask> {
        let FrozenState { rows, arena, writer, mut snapshotter, key_groups, meta, promise } = self;
        rows.for_shares(SHARE_ROWS, |rows, writes| {
            writer.for_shares(&arena, rows, writes, |ops| snapshotter.write(ops))
        })?;
        drop(arena);
        // Whether or not the files could be frozen, the rows are in the store, and from here on the
        // task may write again.
        let frozen = snapshotter.freeze(site);
        promise.settle(Progress::Written);
        frozen?;
        Ok(Box::new(move |site| Ok(vec![SnapshotPart::Keyed(snapshotter.upload(site, key_groups, meta)?)])))
    }
}
