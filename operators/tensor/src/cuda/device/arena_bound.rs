//! How large a batch's arena may be. Pure.
//!
//! What weights, references and scratch leave is shared out among the slots in equal parts, so that
//! one batch does not starve the next. A part of a single row may have all that is left: it cannot
//! be made smaller.

/// The bound of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ArenaBound {
    share_bytes: usize,
    alone_bytes: usize,
}

impl ArenaBound {
    /// For one of `slots` slots: `free_bytes` are left in the budget (its own arena counted as free),
    /// idle slots hold `idle_bytes` that they can give back, and busy ones `busy_bytes`.
    pub(super) fn new(slots: usize, free_bytes: usize, idle_bytes: usize, busy_bytes: usize) -> ArenaBound {
        let alone_bytes = free_bytes.saturating_add(idle_bytes);
        let share = alone_bytes.saturating_add(busy_bytes) / slots.max(1);
        ArenaBound { share_bytes: share.min(alone_bytes), alone_bytes }
    }

    /// For a part of so many rows.
    pub(super) fn bytes_max(&self, rows: usize) -> usize {
        if rows == 1 { self.alone_bytes } else { self.share_bytes }
    }

    /// The bound after the device refused `bytes` that were within it; nothing where that leaves
    /// nothing.
    pub(super) fn below(&self, bytes: usize) -> Option<ArenaBound> {
        let share_bytes = self.share_bytes.min(bytes.checked_sub(1)?);
        Some(ArenaBound { share_bytes, ..*self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_share_what_there_is_whoever_holds_it() {
        let bound = ArenaBound::new(2, 600, 0, 400);
        assert_eq!((bound.bytes_max(10), bound.bytes_max(1)), (500, 600));
        // The same memory, held otherwise.
        assert_eq!(ArenaBound::new(2, 200, 400, 400).bytes_max(10), 500);
        // More than a share is busy: what is left is all there is.
        assert_eq!(ArenaBound::new(2, 300, 0, 700).bytes_max(10), 300);
    }

    #[test]
    fn every_refusal_bounds_the_next_try_below_it() {
        let bound = ArenaBound::new(1, 1_000, 0, 0);
        let smaller = bound.below(800).unwrap();
        assert_eq!((smaller.bytes_max(2), smaller.bytes_max(1)), (799, 1_000));
        assert_eq!(smaller.below(900), Some(smaller));
        assert_eq!(bound.below(0), None);
    }
}
