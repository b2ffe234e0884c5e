//! How far the rows themselves say that time has come: what one row from the future is held
//! against.

use super::Micros;

/// So many rows in a row that lie too far ahead are no fast clock: time has moved on.
const BELIEVED_AFTER: u32 = 100;

/// How far the rows of one split have come.
///
/// The rule: a row counts that lies no more than a bound behind the latest that counts. One that
/// lies further ahead does not, unless a hundred come with none between them that counts: then the
/// stream has a gap, and goes on behind it. The first rows are held against the time in their
/// middle. Kept in memory alone: it begins anew with a restore.
#[derive(Clone, Debug, Default)]
pub struct RowsReached {
    reached: Option<Micros>,
    /// Rows that did not count since the last that did, and the earliest time of theirs.
    refused: u32,
    earliest_refused: Micros,
}

impl RowsReached {
    /// The latest time that counts, for each of these rows, in their order: `by` behind the latest
    /// before it. Rows without a time are `None`.
    pub fn limits(&mut self, times: &[Option<Micros>], by: Micros) -> Vec<Micros> {
        if self.reached.is_none() {
            self.reached = middle(times);
        }
        times.iter().map(|time| self.limit(*time, by)).collect()
    }

    fn limit(&mut self, time: Option<Micros>, by: Micros) -> Micros {
        let (Some(time), Some(reached)) = (time, self.reached) else { return Micros::MAX };
        let limit = reached.saturating_add(by);
        if time <= limit {
            (self.reached, self.refused) = (Some(reached.max(time)), 0);
            return limit;
        }
        self.earliest_refused = if self.refused == 0 { time } else { self.earliest_refused.min(time) };
        self.refused += 1;
        if self.refused < BELIEVED_AFTER {
            return limit;
        }
        (self.reached, self.refused) = (Some(self.earliest_refused), 0);
        self.limit(Some(time), by)
    }
}

fn middle(times: &[Option<Micros>]) -> Option<Micros> {
    let mut times: Vec<Micros> = times.iter().flatten().copied().collect();
    times.sort_unstable();
    // Of two the earlier: a fast clock is the danger.
    times.get(times.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{HOUR, SECOND};

    fn counts(reached: &mut RowsReached, times: &[Micros]) -> Vec<bool> {
        let given: Vec<_> = times.iter().copied().map(Some).collect();
        let limits = reached.limits(&given, HOUR);
        times.iter().zip(limits).map(|(time, limit)| *time <= limit).collect()
    }

    #[test]
    fn one_fast_clock_does_not_count_first_or_later_and_takes_nobody_with_it() {
        let mut reached = RowsReached::default();
        assert_eq!(counts(&mut reached, &[9 * HOUR, SECOND, 2 * SECOND]), [false, true, true]);
        assert_eq!(counts(&mut reached, &[HOUR, 9 * HOUR, 2 * HOUR]), [true, false, true]);
        for _ in 0..BELIEVED_AFTER * 3 {
            assert_eq!(counts(&mut reached, &[9 * HOUR, 2 * HOUR]), [false, true]);
        }
    }

    #[test]
    fn behind_a_gap_the_stream_goes_on_after_a_hundred_rows() {
        let mut reached = RowsReached::default();
        assert_eq!(counts(&mut reached, &[0]), [true]);
        let behind: Vec<Micros> = (0..150).map(|row| 24 * HOUR + row * SECOND).collect();
        let counted = counts(&mut reached, &behind);
        assert_eq!(counted.iter().filter(|counts| !**counts).count(), 99);
        assert_eq!(counts(&mut reached, &[24 * HOUR, 25 * HOUR, 40 * HOUR]), [true, true, false]);
    }

    #[test]
    fn rows_without_a_time_say_nothing() {
        let mut reached = RowsReached::default();
        assert_eq!(reached.limits(&[None], HOUR), [Micros::MAX]);
        assert_eq!(counts(&mut reached, &[5, 3 * HOUR]), [true, false]);
    }
}
