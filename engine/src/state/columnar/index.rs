//! The open-addressing index from a key's tag to its slot: linear probing over 8-byte entries, the
//! tag above, the slot plus one below, zero where nothing is.
//!
//! The tag is the upper half of a multiplicative remix of the key's hash, so the index does not
//! lean on the low bits that chose the key group and are nearly constant here. A bucket is named
//! by the tag's upper bits: growing and deleting need no key.

/// Grow above this share of occupied buckets, in eighths.
const LOAD_EIGHTHS_MAX: usize = 5;
const BUCKETS_MIN: usize = 64;

/// The entry of an empty bucket.
const EMPTY: u64 = 0;

/// The tag of a key: a remix of its hash and, where there is one, its namespace.
#[inline]
pub(super) fn tag_of(hash: u64, namespace: u64) -> u32 {
    let mixed = (hash ^ namespace.wrapping_mul(0xD6E8_FEB8_6659_FD93)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as u32
}

pub(super) struct Index {
    entries: Vec<u64>,
    /// `32 - log2(buckets)`.
    shift: u32,
    len: usize,
}

/// Where a probe stands.
#[derive(Clone, Copy, Default)]
pub(super) struct Probe {
    position: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Index { entries: vec![EMPTY; BUCKETS_MIN], shift: 32 - BUCKETS_MIN.trailing_zeros(), len: 0 }
    }

    /// Bytes that the entries take.
    pub(super) fn bytes(&self) -> usize {
        self.entries.len() * size_of::<u64>()
    }

    /// Bytes that making room for `additional` keys would take beside them.
    pub(super) fn growth_bytes(&self, additional: usize) -> usize {
        self.buckets_beyond(additional).map_or(0, |buckets| buckets * size_of::<u64>())
    }

    /// How many buckets so many keys more need, when they are more than there are.
    fn buckets_beyond(&self, additional: usize) -> Option<usize> {
        let needed = (self.len + additional) * 8 / LOAD_EIGHTHS_MAX + 1;
        (needed > self.entries.len()).then(|| needed.next_power_of_two())
    }

    /// Makes room for `additional` keys, so that inserting them moves nothing.
    pub(super) fn reserve(&mut self, additional: usize) {
        if let Some(buckets) = self.buckets_beyond(additional) {
            self.grow(buckets);
        }
    }

    fn grow(&mut self, buckets: usize) {
        let old = std::mem::replace(&mut self.entries, vec![EMPTY; buckets]);
        self.shift = 32 - buckets.trailing_zeros();
        for entry in old.into_iter().filter(|&entry| entry != EMPTY) {
            self.place(entry);
        }
    }

    #[inline]
    fn place(&mut self, entry: u64) {
        let mask = self.entries.len() - 1;
        let mut position = self.home((entry >> 32) as u32);
        while self.entries[position] != EMPTY {
            position = (position + 1) & mask;
        }
        self.entries[position] = entry;
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        (u64::from(tag) >> self.shift) as usize
    }

    /// Brings the first bucket of `tag` near.
    #[inline]
    pub(super) fn prefetch(&self, tag: u32) {
        prefetch(&self.entries[self.home(tag)]);
    }

    /// Begins a probe for `tag`.
    #[inline]
    pub(super) fn probe(&self, tag: u32) -> Probe {
        Probe { position: self.home(tag) }
    }

    /// The next slot with this tag; `None` when there is no more.
    #[inline]
    pub(super) fn next(&self, probe: &mut Probe, tag: u32) -> Option<u32> {
        let mask = self.entries.len() - 1;
        loop {
            let entry = self.entries[probe.position & mask];
            if entry == EMPTY {
                return None;
            }
            probe.position = (probe.position + 1) & mask;
            if (entry >> 32) as u32 == tag {
                return Some((entry as u32).wrapping_sub(1));
            }
        }
    }

    /// Adds a slot under `tag`. Room was made by [`Index::reserve`].
    #[inline]
    pub(super) fn insert(&mut self, tag: u32, slot: u32) {
        self.len += 1;
        self.place((u64::from(tag) << 32) | u64::from(slot + 1));
    }

    /// Removes a slot: the entries behind it move up, so there are no graves to walk over.
    pub(super) fn remove(&mut self, tag: u32, slot: u32) {
        let mask = self.entries.len() - 1;
        let wanted = (u64::from(tag) << 32) | u64::from(slot + 1);
        let mut hole = self.home(tag);
        while self.entries[hole] != wanted {
            if self.entries[hole] == EMPTY {
                return;
            }
            hole = (hole + 1) & mask;
        }
        self.len -= 1;
        let mut next = hole;
        loop {
            next = (next + 1) & mask;
            let entry = self.entries[next];
            if entry == EMPTY {
                break;
            }
            let home = self.home((entry >> 32) as u32);
            // The entry may move to the hole unless its home lies behind the hole.
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.entries[hole] = entry;
                hole = next;
            }
        }
        self.entries[hole] = EMPTY;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Asks for a cache line without waiting for it. A hint: does nothing where there is none.
#[inline]
pub(super) fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address has no effect on memory, and this one is a valid reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn slots(index: &Index, tag: u32) -> Vec<u32> {
        let mut probe = index.probe(tag);
        let mut found: Vec<u32> = std::iter::from_fn(|| index.next(&mut probe, tag)).collect();
        found.sort_unstable();
        found
    }

    proptest! {
        /// Tags are drawn from few values at both ends of the table, so runs collide and wrap.
        #[test]
        fn the_index_holds_what_a_map_holds(
            steps in prop::collection::vec((any::<bool>(), 0_u32..6, 0_u32..40), 1..400),
        ) {
            let mut index = Index::new();
            let mut expected: BTreeMap<u32, u32> = BTreeMap::new();
            for (insert, tag, slot) in steps {
                let tag = if tag < 3 { tag } else { u32::MAX - tag };
                if insert && !expected.contains_key(&slot) {
                    index.reserve(1);
                    index.insert(tag, slot);
                    expected.insert(slot, tag);
                } else if !insert && let Some(tag) = expected.remove(&slot) {
                    index.remove(tag, slot);
                }
                prop_assert_eq!(index.len(), expected.len());
                for tag in [0, 1, 2, u32::MAX - 3, u32::MAX - 4, u32::MAX - 5] {
                    let wanted: Vec<u32> =
                        expected.iter().filter(|&(_, &t)| t == tag).map(|(&slot, _)| slot).collect();
                    prop_assert_eq!(slots(&index, tag), wanted);
                }
            }
        }
    }

    #[test]
    fn hashes_of_one_key_group_spread_over_the_index() {
        let mut index = Index::new();
        index.reserve(100_000);
        let mut homes: Vec<usize> =
            (0..100_000_u64).map(|i| index.home(tag_of(i * 128 * 0x1234_5671 + 5, 0))).collect();
        homes.sort_unstable();
        homes.dedup();
        assert!(homes.len() > 60_000, "{} distinct buckets", homes.len());
    }
}
