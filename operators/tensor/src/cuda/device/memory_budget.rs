//! A hard bound on a plan's device memory.
//!
//! Every allocation holds a [`Share`]; what the shares hold together never exceeds the bound, and a
//! share that is dropped gives its bytes back. Nothing here touches a device.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes that a plan may use.
#[derive(Clone, Debug)]
pub(super) struct MemoryBudget {
    bytes_max: usize,
    bytes_used: Arc<AtomicUsize>,
}

/// Bytes taken from a budget, until dropped.
#[derive(Debug)]
pub(super) struct Share {
    bytes: usize,
    bytes_used: Arc<AtomicUsize>,
}

impl MemoryBudget {
    /// Of `bytes_max` bytes, none of them used.
    pub(super) fn new(bytes_max: usize) -> MemoryBudget {
        MemoryBudget { bytes_max, bytes_used: Arc::new(AtomicUsize::new(0)) }
    }

    /// Takes `bytes`, where that many are left.
    pub(super) fn try_take(&self, bytes: usize) -> Option<Share> {
        self.bytes_used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max)
            })
            .ok()?;
        Some(Share { bytes, bytes_used: Arc::clone(&self.bytes_used) })
    }

    /// The bound.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// What the shares hold now.
    pub(super) fn bytes_used(&self) -> usize {
        self.bytes_used.load(Ordering::Relaxed)
    }

    /// What could be taken now.
    pub(super) fn bytes_left(&self) -> usize {
        self.bytes_max - self.bytes_used()
    }
}

impl Share {
    /// How much it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.bytes_used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_what_is_dropped_can_be_taken_again() {
        let budget = MemoryBudget::new(100);
        let first = budget.try_take(60).unwrap();
        assert!(budget.try_take(41).is_none());
        let second = budget.try_take(40).unwrap();
        assert_eq!((budget.bytes_used(), budget.bytes_left()), (100, 0));
        drop(first);
        assert_eq!(budget.bytes_left(), 60);
        assert!(budget.try_take(usize::MAX).is_none());
        drop(second);
        assert_eq!(budget.bytes_used(), 0);
    }

    #[test]
    fn threads_that_race_for_it_never_pass_the_bound() {
        let budget = MemoryBudget::new(1_000);
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let budget = budget.clone();
                std::thread::spawn(move || {
                    for _ in 0..2_000 {
                        let share = budget.try_take(300);
                        assert!(budget.bytes_used() <= 1_000);
                        drop(share);
                    }
                })
            })
            .collect();
        for taker in takers {
            taker.join().unwrap();
        }
        assert_eq!(budget.bytes_used(), 0);
    }
}
