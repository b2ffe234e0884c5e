//! Bytes of any length behind a one-word handle: keys that do not fit a word, and strings in
//! states. Append-only segments, shared with frozen snapshots. A segment goes when nobody needs a
//! value in it any more; values in segments that are mostly garbage are moved by a compaction, some
//! segments at a time, so that it needs little room of its own.

use std::sync::{Arc, Weak};

/// Bytes a segment holds; a value of more than a quarter of it gets a segment of its own.
const SEGMENT_BYTES: usize = 256 * 1024;
const SEGMENT_BYTES_MIN: usize = 1024;
/// Length prefix of a value.
const PREFIX_BYTES: usize = 4;

/// What a word holds instead of a handle when there is no value.
pub(super) const NO_BYTES: u64 = 0;

#[derive(Clone)]
struct Segment {
    bytes: Arc<Vec<u8>>,
    /// Bytes of it that somebody needs.
    live: usize,
    /// Its values are being moved.
    leaving: bool,
}

/// The segments; cheap to clone (one reference count per segment).
#[derive(Clone, Default)]
pub(super) struct Arena {
    segments: Vec<Option<Segment>>,
    vacant: Vec<usize>,
    /// The segment that values are appended to; it stays while it is.
    open: Option<usize>,
    held: usize,
    live: usize,
    /// Segments that are gone here and that a frozen snapshot may still read, with their bytes.
    lent: Vec<(Weak<Vec<u8>>, usize)>,
}

impl Arena {
    /// Appends a value. The handle is never [`NO_BYTES`].
    pub(super) fn insert(&mut self, bytes: &[u8]) -> u64 {
        let needed = PREFIX_BYTES + bytes.len();
        self.live += needed;
        if let Some(number) = self.open
            && let Some(segment) = self.segments[number].as_mut()
            && let Some(room) = Arc::get_mut(&mut segment.bytes)
            && room.len() + needed <= room.capacity()
        {
            segment.live += needed;
            return handle(number, push(room, bytes));
        }
        let is_long = needed > SEGMENT_BYTES / 4;
        // Otherwise the open one is full, or a frozen snapshot reads it.
        let usual = self.live.next_power_of_two().clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES);
        let capacity = if is_long { needed } else { usual.max(needed) };
        let mut segment = Vec::with_capacity(capacity);
        let offset = push(&mut segment, bytes);
        self.held += segment.capacity();
        let segment = Segment { bytes: Arc::new(segment), live: needed, leaving: false };
        let number = match self.vacant.pop() {
            Some(number) => {
                self.segments[number] = Some(segment);
                number
            }
            None => {
                self.segments.push(Some(segment));
                self.segments.len() - 1
            }
        };
        if !is_long {
            self.close();
            self.open = Some(number);
        }
        handle(number, offset)
    }

    /// Appends to the open segment no more.
    fn close(&mut self) {
        if let Some(number) = self.open.take()
            && self.segments[number].as_ref().is_some_and(|segment| segment.live == 0)
        {
            self.let_go(number);
        }
    }

    /// The value behind a handle.
    #[inline]
    pub(super) fn get(&self, handle: u64) -> &[u8] {
        let Some((number, offset)) = place(handle) else { return &[] };
        let Some(Some(segment)) = self.segments.get(number) else { return &[] };
        value_at(&segment.bytes, offset)
    }

    /// Says that nobody needs the value any more.
    pub(super) fn release(&mut self, handle: u64) {
        let bytes = PREFIX_BYTES + self.get(handle).len();
        let Some((number, _)) = place(handle) else { return };
        let Some(Some(segment)) = self.segments.get_mut(number) else { return };
        segment.live -= bytes;
        self.live -= bytes;
        if segment.live == 0 && self.open != Some(number) {
            self.let_go(number);
        }
    }

    fn let_go(&mut self, number: usize) {
        let Some(Segment { bytes, .. }) = self.segments[number].take() else { return };
        self.vacant.push(number);
        self.held -= bytes.capacity();
        if Arc::strong_count(&bytes) > 1 {
            self.lent.push((Arc::downgrade(&bytes), bytes.capacity()));
        }
    }

    /// Bytes that are kept alive: segments, and those that only a frozen snapshot still reads.
    pub(super) fn bytes(&self) -> usize {
        let lent = self.lent.iter().filter(|(segment, _)| segment.strong_count() > 0);
        self.held + lent.map(|(_, bytes)| bytes).sum::<usize>()
    }

    /// Bytes of the values.
    pub(super) fn live_bytes(&self) -> usize {
        self.live
    }

    /// Bytes that a compaction could free.
    pub(super) fn garbage_bytes(&self) -> usize {
        self.held - self.live
    }

    /// No frozen snapshot reads anything any more.
    pub(super) fn settled(&mut self) {
        self.lent.retain(|(segment, _)| segment.strong_count() > 0);
    }

    /// Chooses the segments with the most garbage until their values are so many bytes; one at
    /// least, if there is any garbage. The values are to be moved, see [`Arena::is_leaving`].
    pub(super) fn choose_leaving(&mut self, bytes_max: usize) {
        self.close();
        let mut order: Vec<usize> = (0..self.segments.len()).collect();
        let share = |number: usize| {
            let segment = self.segments[number].as_ref();
            segment.map_or(1.0, |segment| segment.live as f64 / segment.bytes.capacity() as f64)
        };
        order.sort_by(|&one, &other| share(one).total_cmp(&share(other)));
        let mut moving = 0;
        for number in order {
            let Some(segment) = &mut self.segments[number] else { continue };
            let is_full = segment.live == segment.bytes.capacity();
            if is_full || (moving > 0 && moving + segment.live > bytes_max) {
                break;
            }
            moving += segment.live;
            segment.leaving = true;
        }
    }

    /// Whether a value lies in a segment that is to go.
    pub(super) fn is_leaving(&self, handle: u64) -> bool {
        let segment = place(handle).and_then(|(number, _)| self.segments.get(number)?.as_ref());
        segment.is_some_and(|segment| segment.leaving)
    }

    /// Moves a value to another segment; answers its new handle.
    pub(super) fn relocate(&mut self, handle: u64) -> u64 {
        let Some((number, offset)) = place(handle) else { return handle };
        let Some(Some(segment)) = self.segments.get(number) else { return handle };
        let bytes = segment.bytes.clone();
        let moved = self.insert(value_at(&bytes, offset));
        drop(bytes);
        self.release(handle);
        moved
    }
}

/// The value at an offset of a segment.
#[inline]
fn value_at(segment: &[u8], offset: usize) -> &[u8] {
    let mut prefix = [0; PREFIX_BYTES];
    prefix.copy_from_slice(&segment[offset..offset + PREFIX_BYTES]);
    let start = offset + PREFIX_BYTES;
    &segment[start..start + u32::from_le_bytes(prefix) as usize]
}

fn push(segment: &mut Vec<u8>, bytes: &[u8]) -> usize {
    let offset = segment.len();
    segment.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    segment.extend_from_slice(bytes);
    offset
}

/// The segment's number plus one above, the offset below: zero stays free for "no value".
fn handle(segment: usize, offset: usize) -> u64 {
    ((segment as u64 + 1) << 32) | offset as u64
}

fn place(handle: u64) -> Option<(usize, usize)> {
    let segment = (handle >> 32).checked_sub(1)?;
    Some((segment as usize, handle as u32 as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_come_back_also_after_a_clone_froze_the_segment() {
        let mut arena = Arena::default();
        let first = arena.insert(b"one");
        let frozen = arena.clone();
        let second = arena.insert(&[7; 300_000]);
        let third = arena.insert(b"");
        assert_eq!(frozen.get(first), b"one");
        assert_eq!(arena.get(first), b"one");
        assert_eq!(arena.get(second), &[7; 300_000][..]);
        assert_eq!(arena.get(third), b"");
        assert_ne!(third, NO_BYTES);
        assert_eq!(arena.live_bytes(), 7 + 300_004 + 4);
    }

    #[test]
    fn what_a_frozen_snapshot_keeps_alive_counts_until_it_is_gone() {
        let mut arena = Arena::default();
        let long = arena.insert(&[7; 300_000]);
        let frozen = arena.clone();
        arena.release(long);
        assert_eq!(arena.live_bytes(), 0);
        assert!(arena.bytes() > 300_000, "{}", arena.bytes());
        drop(frozen);
        assert!(arena.bytes() < 2_000, "{}", arena.bytes());
    }

    proptest! {
        /// Values of all lengths, dropped and moved in any order: what is needed comes back, and what
        /// is kept alive is what the segments hold.
        #[test]
        fn values_stay_and_bytes_are_what_is_kept_alive(
            steps in prop::collection::vec((0_u8..4, 0_usize..60, 0_usize..100_000), 1..120),
        ) {
            let mut arena = Arena::default();
            let mut kept: Vec<(u64, Vec<u8>)> = Vec::new();
            for (step, (kind, place, length)) in steps.into_iter().enumerate() {
                let value = vec![step as u8; if kind == 0 { length } else { length % 500 }];
                if kind < 2 {
                    kept.push((arena.insert(&value), value));
                } else if kind == 2 && !kept.is_empty() {
                    let (handle, _) = kept.swap_remove(place % kept.len());
                    arena.release(handle);
                } else {
                    arena.choose_leaving(50_000);
                    for (handle, _) in &mut kept {
                        if arena.is_leaving(*handle) {
                            *handle = arena.relocate(*handle);
                        }
                    }
                }
                for (handle, value) in &kept {
                    prop_assert_eq!(arena.get(*handle), value.as_slice());
                }
                let live: usize = kept.iter().map(|(_, value)| value.len() + PREFIX_BYTES).sum();
                let held: usize = arena.segments.iter().flatten().map(|s| s.bytes.capacity()).sum();
                prop_assert_eq!((arena.live_bytes(), arena.bytes()), (live, held));
            }
            while let Some((handle, _)) = kept.pop() {
                arena.release(handle);
            }
            arena.close();
            prop_assert_eq!((arena.live_bytes(), arena.bytes()), (0, 0));
        }
    }
}
