//! Bytes of any length behind a one-word handle: keys that do not fit a word, and strings in
//! states. Append-only segments, shared with frozen snapshots; what is dropped becomes garbage and
//! is left behind by a compaction when more than half of the arena is garbage.

use std::sync::Arc;

/// Bytes a segment holds; a longer value gets a segment of its own.
const SEGMENT_BYTES: usize = 256 * 1024;
/// Below this much garbage a compaction is not worth its pass over the table.
const GARBAGE_BYTES_MIN: usize = 1024 * 1024;
/// Length prefix of a value.
const PREFIX_BYTES: usize = 4;

/// What a word holds instead of a handle when there is no value.
pub(super) const NO_BYTES: u64 = 0;

/// The segments; cheap to clone (one reference count per segment).
#[derive(Clone, Default)]
pub(super) struct Arena {
    segments: Vec<Arc<Vec<u8>>>,
    used: usize,
    garbage: usize,
}

impl Arena {
    /// Appends a value. The handle is never [`NO_BYTES`].
    pub(super) fn insert(&mut self, bytes: &[u8]) -> u64 {
        let needed = PREFIX_BYTES + bytes.len();
        self.used += needed;
        if let Some(segment) = self.segments.last_mut().and_then(Arc::get_mut)
            && segment.len() + needed <= segment.capacity()
        {
            let offset = push(segment, bytes);
            return handle(self.segments.len() - 1, offset);
        }
        // The last segment is full, or a frozen snapshot still reads it.
        let mut segment = Vec::with_capacity(needed.max(SEGMENT_BYTES.min(self.used.next_power_of_two())));
        let offset = push(&mut segment, bytes);
        self.segments.push(Arc::new(segment));
        handle(self.segments.len() - 1, offset)
    }

    /// The value behind a handle.
    #[inline]
    pub(super) fn get(&self, handle: u64) -> &[u8] {
        let Some((segment, offset)) = place(handle).and_then(|(s, o)| Some((self.segments.get(s)?, o)))
        else {
            return &[];
        };
        let mut prefix = [0; PREFIX_BYTES];
        prefix.copy_from_slice(&segment[offset..offset + PREFIX_BYTES]);
        let start = offset + PREFIX_BYTES;
        &segment[start..start + u32::from_le_bytes(prefix) as usize]
    }

    /// Says that nobody needs the value any more.
    pub(super) fn release(&mut self, handle: u64) {
        if handle != NO_BYTES {
            self.garbage += PREFIX_BYTES + self.get(handle).len();
        }
    }

    /// Whether more than half is garbage.
    pub(super) fn wants_compaction(&self) -> bool {
        self.garbage > GARBAGE_BYTES_MIN && self.garbage * 2 > self.used
    }

    /// Bytes in use, garbage included.
    pub(super) fn bytes(&self) -> usize {
        self.used
    }

    /// Bytes in use without garbage.
    #[cfg(test)]
    pub(super) fn live_bytes(&self) -> usize {
        self.used - self.garbage.min(self.used)
    }
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
        arena.release(second);
        assert!(!arena.wants_compaction(), "too little to bother");
        assert_eq!(arena.live_bytes(), 7 + 4);
    }
}
