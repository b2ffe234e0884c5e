//! A batch cut into parts that the device can do, always between two rows.
//!
//! Pure: what a part needs is asked of a function, so that every decision has a test here.

use std::ops::Range;

/// What bounds a part whatever the memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartLimits {
    /// Rows of a part, at most.
    pub(super) rows_max: usize,
    /// Tokens of a part on each axis, at most; a row that has more is a part alone.
    pub(super) tokens_max: usize,
}

/// Cuts `rows` rows into parts, in order, all of which `fits`. A part that does not fit is halved.
///
/// # Errors
/// The row that does not fit even alone.
pub(super) fn cut(
    rows: usize,
    offsets: &[&[i32]],
    limits: PartLimits,
    mut fits: impl FnMut(&Range<usize>) -> bool,
) -> Result<Vec<Range<usize>>, usize> {
    let mut parts = Vec::new();
    // What is still to be looked at, the last first.
    let mut left: Vec<Range<usize>> = within_limits(rows, offsets, limits);
    left.reverse();
    while let Some(part) = left.pop() {
        if fits(&part) {
            parts.push(part);
        } else if part.len() == 1 {
            return Err(part.start);
        } else {
            let middle = part.start + part.len() / 2;
            left.push(middle..part.end);
            left.push(part.start..middle);
        }
    }
    Ok(parts)
}

/// As few parts as the limits allow, none of them empty.
fn within_limits(rows: usize, offsets: &[&[i32]], limits: PartLimits) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let mut start = 0;
    while start < rows {
        let mut end = rows.min(start.saturating_add(limits.rows_max.max(1)));
        for offsets in offsets {
            let bound = i64::from(offsets[start]).saturating_add_unsigned(limits.tokens_max as u64);
            // The offsets up to `end` rise; the last that keeps the bound ends the part.
            let rows = offsets[start + 1..=end].partition_point(|offset| i64::from(*offset) <= bound);
            end = start + rows.max(1);
        }
        parts.push(start..end);
        start = end;
    }
    parts
}

/// A part's own offsets: those of its rows, from 0 on.
pub(super) fn rebased(offsets: &[i32], part: &Range<usize>) -> Vec<i32> {
    let first = offsets[part.start];
    offsets[part.start..=part.end].iter().map(|offset| offset - first).collect()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    const WIDE: PartLimits = PartLimits { rows_max: 1_000, tokens_max: 1_000 };

    #[test]
    fn a_batch_that_fits_is_one_part_and_an_empty_one_is_none() {
        assert_eq!(cut(7, &[], WIDE, |_| true), Ok(vec![0..7]));
        assert_eq!(cut(0, &[&[0]], WIDE, |_| false), Ok(vec![]));
    }

    #[test]
    fn rows_and_tokens_beyond_the_limits_go_into_the_next_part() {
        let limits = PartLimits { rows_max: 3, tokens_max: 10 };
        assert_eq!(cut(7, &[], limits, |_| true), Ok(vec![0..3, 3..6, 6..7]));
        // Lengths 4, 6, 1, 0, 12, 10, 1: the row of 12 is beyond the limit and stands alone.
        let offsets: &[i32] = &[0, 4, 10, 11, 11, 23, 33, 34];
        assert_eq!(cut(7, &[offsets], limits, |_| true), Ok(vec![0..2, 2..4, 4..5, 5..6, 6..7]));
    }

    #[test]
    fn every_axis_has_its_say() {
        let limits = PartLimits { rows_max: 100, tokens_max: 4 };
        let short: &[i32] = &[0, 1, 2, 3, 4];
        let long: &[i32] = &[0, 3, 6, 7, 8];
        assert_eq!(cut(4, &[short, long], limits, |_| true), Ok(vec![0..1, 1..3, 3..4]));
        assert_eq!(cut(4, &[long, short], limits, |_| true), Ok(vec![0..1, 1..3, 3..4]));
    }

    #[test]
    fn what_does_not_fit_is_halved_in_order_down_to_one_row() {
        assert_eq!(cut(10, &[], WIDE, |part| part.len() <= 3), Ok(vec![0..2, 2..5, 5..7, 7..10]));
        let singles: Vec<_> = (0..5).map(|row| row..row + 1).collect();
        assert_eq!(cut(5, &[], WIDE, |part| part.len() == 1), Ok(singles));
    }

    #[test]
    fn a_row_that_does_not_fit_alone_is_named() {
        assert_eq!(cut(8, &[], WIDE, |part| !part.contains(&5)), Err(5));
    }

    #[test]
    fn parts_cover_every_row_once_whatever_the_lengths() {
        let mut seed = 7_u32;
        let mut random = |bound: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % bound
        };
        for _ in 0..500 {
            let rows = random(40) as usize;
            let mut offsets = vec![0_i32];
            for _ in 0..rows {
                offsets.push(offsets[offsets.len() - 1] + random(9) as i32);
            }
            let limits =
                PartLimits { rows_max: 1 + random(20) as usize, tokens_max: 1 + random(30) as usize };
            let tokens = |part: &Range<usize>| (offsets[part.end] - offsets[part.start]) as usize;
            let parts = cut(rows, &[&offsets], limits, |part| part.len() == 1 || tokens(part) < 20).unwrap();
            let mut next = 0;
            for part in parts {
                assert_eq!(part.start, next);
                assert!(part.len() <= limits.rows_max);
                assert!(part.len() == 1 || tokens(&part) <= limits.tokens_max.min(19));
                let own = rebased(&offsets, &part);
                assert_eq!((own[0], own.len()), (0, part.len() + 1));
                assert_eq!(own[part.len()] as usize, tokens(&part));
                next = part.end;
            }
            assert_eq!(next, rows);
        }
    }
}
