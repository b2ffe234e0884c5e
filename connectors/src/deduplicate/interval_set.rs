//! A set of numbers that costs memory only where it has gaps: `0..1_000_000` is one interval. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thalweg_engine::state::StateSize;

/// What [`IntervalSet::insert`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Inserted {
    /// It was not there and now is.
    New,
    /// It was there.
    Known,
    /// It was not there, and there is no room for another interval.
    Full,
}

/// Disjoint intervals that do not touch, by their first number; `last` is inclusive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntervalSet(BTreeMap<u64, u64>);

impl StateSize for IntervalSet {
    fn state_size(&self) -> usize {
        self.0.state_size()
    }
}

impl IntervalSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of intervals: one more than there are gaps inside.
    pub fn interval_count(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds `number`.
    pub fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, &last)| number <= last)
    }

    /// Adds `number`, unless that would make more than `intervals_max` intervals.
    pub fn insert(&mut self, number: u64, intervals_max: usize) -> Inserted {
        let below = self.0.range(..=number).next_back().map(|(&first, &last)| (first, last));
        if below.is_some_and(|(_, last)| number <= last) {
            return Inserted::Known;
        }
        let joins_below = below.filter(|&(_, last)| last + 1 == number).map(|(first, _)| first);
        let above = number.checked_add(1).and_then(|next| Some((next, *self.0.get(&next)?)));
        match (joins_below, above) {
            (Some(first), Some((next, last))) => {
                self.0.remove(&next);
                self.0.insert(first, last);
            }
            (Some(first), None) => {
                self.0.insert(first, number);
            }
            (None, Some((next, last))) => {
                self.0.remove(&next);
                self.0.insert(number, last);
            }
            (None, None) if self.0.len() >= intervals_max => return Inserted::Full,
            (None, None) => {
                self.0.insert(number, number);
            }
        }
        Inserted::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_run_without_gaps_is_one_interval_in_any_order() {
        let mut set = IntervalSet::new();
        for number in (0..1000).rev().step_by(2).chain((0..1000).step_by(2)) {
            assert_eq!(set.insert(number, usize::MAX), Inserted::New);
        }
        assert_eq!(set.interval_count(), 1);
        assert_eq!(set.insert(999, 1), Inserted::Known);
    }

    #[test]
    fn at_the_bound_gaps_are_refused_and_neighbours_still_join() {
        let mut set = IntervalSet::new();
        for number in [0, 10, 20] {
            assert_eq!(set.insert(number, 3), Inserted::New);
        }
        assert_eq!(set.insert(30, 3), Inserted::Full);
        assert!(!set.contains(30));
        assert_eq!(set.insert(21, 3), Inserted::New);
        assert_eq!(set.insert(u64::MAX, 4), Inserted::New);
        assert_eq!(set.insert(u64::MAX, 4), Inserted::Known);
    }

    proptest! {
        #[test]
        fn it_is_a_set_and_its_intervals_are_the_runs(numbers in proptest::collection::vec(0u64..60, 0..120)) {
            let (mut set, mut model) = (IntervalSet::new(), BTreeSet::new());
            for number in numbers {
                let expected = if model.insert(number) { Inserted::New } else { Inserted::Known };
                prop_assert_eq!(set.insert(number, usize::MAX), expected);
            }
            for number in 0..61 {
                prop_assert_eq!(set.contains(number), model.contains(&number));
            }
            let runs = model.iter().filter(|&&n| n == 0 || !model.contains(&(n - 1))).count();
            prop_assert_eq!(set.interval_count(), runs);
        }

        #[test]
        fn a_bounded_set_never_takes_a_new_number_for_a_known_one(
            numbers in proptest::collection::vec(0u64..60, 0..120), bound in 0usize..6,
        ) {
            let (mut set, mut seen) = (IntervalSet::new(), BTreeSet::new());
            for number in numbers {
                let known = seen.contains(&number);
                match set.insert(number, bound) {
                    Inserted::Known => prop_assert!(known),
                    Inserted::New => { seen.insert(number); }
                    Inserted::Full => prop_assert!(!known),
                }
                prop_assert!(set.interval_count() <= bound);
            }
        }
    }
}
