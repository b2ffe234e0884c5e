//! Key groups: the unit in which keyed state moves between subtasks.

use serde::{Deserialize, Serialize};

/// The highest number of key groups a job may have.
pub const MAX_PARALLELISM_LIMIT: u32 = 32_768;

/// One of `max_parallelism` shares of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyGroup(pub u16);

impl KeyGroup {
    /// The key group of a key's hash.
    pub fn of_hash(hash: u64, max_parallelism: u32) -> KeyGroup {
        KeyGroup((hash % u64::from(max_parallelism)) as u16)
    }

    /// The subtask that owns this key group, as Flink assigns it.
    pub fn subtask(self, parallelism: u32, max_parallelism: u32) -> u32 {
        u32::from(self.0) * parallelism / max_parallelism
    }
}

/// Key groups `first..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyGroupRange {
    /// The first key group.
    pub first: u32,
    /// One past the last.
    pub end: u32,
}

impl KeyGroupRange {
    /// What `subtask` of `parallelism` owns.
    pub fn of_subtask(subtask: u32, parallelism: u32, max_parallelism: u32) -> KeyGroupRange {
        KeyGroupRange {
            first: (subtask * max_parallelism).div_ceil(parallelism),
            end: ((subtask + 1) * max_parallelism).div_ceil(parallelism),
        }
    }

    /// Whether it holds `group`.
    pub fn contains(&self, group: KeyGroup) -> bool {
        (self.first..self.end).contains(&u32::from(group.0))
    }

    /// What both hold; `None` when nothing.
    pub fn intersection(&self, other: &KeyGroupRange) -> Option<KeyGroupRange> {
        let both = KeyGroupRange { first: self.first.max(other.first), end: self.end.min(other.end) };
        (both.first < both.end).then_some(both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_group_has_exactly_one_owner_at_any_parallelism() {
        for max_parallelism in [1, 7, 128, 1000] {
            for parallelism in 1..=max_parallelism.min(40) {
                for group in 0..max_parallelism {
                    let group = KeyGroup(group as u16);
                    let owners: Vec<_> = (0..parallelism)
                        .filter(|&subtask| {
                            KeyGroupRange::of_subtask(subtask, parallelism, max_parallelism).contains(group)
                        })
                        .collect();
                    assert_eq!(owners, [group.subtask(parallelism, max_parallelism)]);
                }
            }
        }
    }
}
