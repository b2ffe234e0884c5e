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

    /// The bound after the device refused `bytes` that were within it, for the largest part; nothing
    /// where that part is of one row, or where nothing is left.
    pub(super) fn below(&self, bytes: usize, is_one_row: bool) -> Option<ArenaBound> {
        let share_bytes = self.share_bytes.min(bytes.checked_sub(1)?);
        (!is_one_row).then_some(ArenaBound { share_bytes, ..*self })
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::super::batch_parts::{PartLimits, cut};
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
        let smaller = bound.below(800, false).unwrap();
        assert_eq!((smaller.bytes_max(2), smaller.bytes_max(1)), (799, 1_000));
        assert_eq!(smaller.below(900, false), Some(smaller));
        assert_eq!(bound.below(800, true), None);
        assert_eq!(bound.below(0, false), None);
    }

    /// A device that has less than the budget says: what `CudaPlan::start` does.
    fn parts_on_a_device_of(device_bytes: usize, row_bytes: &[usize]) -> Option<Vec<Range<usize>>> {
        let need = |part: &Range<usize>| row_bytes[part.clone()].iter().sum::<usize>();
        let limits = PartLimits { rows_max: usize::MAX, tokens_max: usize::MAX };
        let mut bound = ArenaBound::new(2, 10_000, 0, 0);
        for _ in 0..100 {
            let fits = |part: &Range<usize>| need(part) <= bound.bytes_max(part.len());
            let parts = cut(row_bytes.len(), &[], limits, fits).ok()?;
            let largest = parts.iter().map(need).max()?;
            if largest <= device_bytes {
                return Some(parts);
            }
            let is_one_row = parts.iter().any(|part| part.len() == 1 && need(part) == largest);
            bound = bound.below(largest, is_one_row)?;
        }
        panic!("it never ends");
    }

    #[test]
    fn a_batch_is_halved_until_the_device_has_room_or_one_row_is_too_much() {
        assert_eq!(parts_on_a_device_of(4_000, &[10; 100]).map(|parts| parts.len()), Some(1));
        assert_eq!(parts_on_a_device_of(300, &[10; 100]).map(|parts| parts.len()), Some(4));
        assert_eq!(parts_on_a_device_of(10, &[10; 100]).map(|parts| parts.len()), Some(100));
        assert_eq!(parts_on_a_device_of(9, &[10; 100]), None);
        // One row is larger than all others, and than a slot's share.
        let mut rows = [10; 100];
        rows[37] = 7_000;
        assert!(parts_on_a_device_of(8_000, &rows).is_some_and(|parts| parts.contains(&(37..38))));
        assert_eq!(parts_on_a_device_of(6_999, &rows), None);
    }
}
