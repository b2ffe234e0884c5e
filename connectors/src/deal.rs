//! Dealing a fixed set of splits to readers: evenly by what is left to read, and the same way
//! every time. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thalweg_engine::source::{Enumerator, EnumeratorAction, EnumeratorEvent, SplitId, SplitState};
use thalweg_engine::{Error, Result};

use crate::position;

/// What is left to read of a split, in any unit.
pub(crate) type Weigh = fn(&SplitState) -> u64;

/// Deals splits: the heaviest first, each to the reader with the least so far; ties go to the
/// lower split name and the lower reader.
pub(crate) fn deal(mut splits: Vec<SplitState>, parallelism: u32, weigh: Weigh) -> Vec<EnumeratorAction> {
    splits.sort_by(|a, b| weigh(b).cmp(&weigh(a)).then_with(|| a.id.cmp(&b.id)));
    let mut hands: Vec<(u64, Vec<SplitState>)> = vec![(0, Vec::new()); parallelism.max(1) as usize];
    for split in splits {
        // A split costs a little even when nothing is left of it.
        let weight = weigh(&split).max(1);
        if let Some(hand) = hands.iter_mut().min_by_key(|hand| hand.0) {
            hand.0 = hand.0.saturating_add(weight);
            hand.1.push(split);
        }
    }
    let mut actions = Vec::new();
    for (subtask, (_, mut splits)) in (0..).zip(hands) {
        if !splits.is_empty() {
            splits.sort_by(|a, b| a.id.cmp(&b.id));
            actions.push(EnumeratorAction::Assign { subtask, splits });
        }
    }
    actions
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    /// Whether the set of splits is known; it is fixed from then on.
    complete: bool,
    /// Splits that no reader has got yet.
    unassigned: Vec<SplitState>,
    /// Splits that were read to their end, and where that was. `None`: nobody asks, as for what a
    /// look finds, or a snapshot of a version that forgot them.
    #[serde(default)]
    finished: Option<Vec<SplitState>>,
    /// While the set is not known: splits that readers had all the same, for they were found by a look
    /// of an earlier attempt. A look that finds them again finds nothing new, also when they are read
    /// to the end by then and no reader's snapshot has them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    held: BTreeSet<SplitId>,
}

impl Known {
    fn finish(&mut self, split: SplitState) {
        if let Some(finished) = &mut self.finished {
            finished.retain(|other| other.id != split.id);
            finished.push(split);
        }
    }

    /// Takes up again what was read to its end and now has more to it. What a reader still `held` comes
    /// from there, and ends once more.
    fn reopen(&mut self, held: &BTreeSet<SplitId>, is_at_end: &dyn Fn(&SplitState) -> bool) {
        let Some(mut finished) = self.finished.take() else { return };
        finished.retain(|split| !held.contains(&split.id));
        let (at_end, reopened): (Vec<_>, Vec<_>) = finished.into_iter().partition(|split| is_at_end(split));
        self.finished = Some(at_end);
        if !reopened.is_empty() {
            tracing::info!(splits = reopened.len(), "goes on with what had been read to its end");
        }
        self.unassigned.extend(reopened);
    }
}

/// An enumerator of splits that are all known at once: from the configuration, or from one look.
///
/// A snapshot holds the splits that nobody has; a split that was dealt is in its reader's
/// snapshot, or is finished. So a split that ends between the enumerator's snapshot and its
/// reader's barrier is in the reader's alone, and is not read again. So is one that is found and
/// dealt between the two: at a restore it is what it has read, not what the next look finds,
/// whenever that comes.
pub(crate) struct FixedSplits {
    known: Known,
    parallelism: Option<u32>,
    weigh: Weigh,
    /// Makes the splits of a fresh start, given the number of readers; `None`: wait for a look.
    initial: Option<Box<dyn Fn(u32) -> Result<Vec<SplitState>> + Send>>,
    /// Whether nothing is left to read of a split, as the source is configured now.
    is_at_end: Option<Box<dyn Fn(&SplitState) -> bool + Send>>,
    /// Reads what a look has found.
    read_discovered: fn(&[u8]) -> Result<Vec<SplitState>>,
}

impl FixedSplits {
    /// Splits that the configuration tells: those of a fresh start, and where each of them ends. What
    /// was read to its end goes on when a source is configured to more than it was.
    pub(crate) fn configured(
        restored: Option<&[u8]>,
        weigh: Weigh,
        initial: impl Fn(u32) -> Result<Vec<SplitState>> + Send + 'static,
        is_at_end: impl Fn(&SplitState) -> bool + Send + 'static,
    ) -> Result<FixedSplits> {
        let nobody_looks = |_: &[u8]| Err(Error::internal("this source has no discovery"));
        let mut splits = Self::discovered(restored, weigh, nobody_looks)?;
        splits.initial = Some(Box::new(initial));
        splits.is_at_end = Some(Box::new(is_at_end));
        if restored.is_none() {
            splits.known.finished = Some(Vec::new());
        }
        Ok(splits)
    }

    /// Splits that one look finds.
    pub(crate) fn discovered(
        restored: Option<&[u8]>,
        weigh: Weigh,
        read_discovered: fn(&[u8]) -> Result<Vec<SplitState>>,
    ) -> Result<FixedSplits> {
        let known = match restored {
            Some(bytes) => position::decode(bytes, "the enumerator's snapshot")?,
            None => Known::default(),
        };
        Ok(FixedSplits { known, parallelism: None, weigh, initial: None, is_at_end: None, read_discovered })
    }

    fn deal_unassigned(&mut self) -> Vec<EnumeratorAction> {
        let Some(parallelism) = self.parallelism else {
            return Vec::new();
        };
        let mut actions = deal(std::mem::take(&mut self.known.unassigned), parallelism, self.weigh);
        if self.known.complete {
            actions.push(EnumeratorAction::NoMoreSplits);
        }
        actions
    }
}

impl Enumerator for FixedSplits {
    fn handle(&mut self, event: EnumeratorEvent) -> Result<Vec<EnumeratorAction>> {
        match event {
            EnumeratorEvent::Started { parallelism, splits } => {
                self.parallelism = Some(parallelism);
                let held: BTreeSet<_> = splits.iter().map(|split| split.id.clone()).collect();
                self.known.unassigned.extend(splits);
                if let Some(is_at_end) = &self.is_at_end {
                    self.known.reopen(&held, is_at_end.as_ref());
                }
                if !self.known.complete {
                    self.known.held.extend(held);
                }
                if let Some(initial) = self.initial.as_ref().filter(|_| !self.known.complete) {
                    self.known.unassigned.extend(initial(parallelism)?);
                    self.known.complete = true;
                    self.known.held.clear();
                }
                Ok(self.deal_unassigned())
            }
            EnumeratorEvent::Discovered(found) if !self.known.complete => {
                let found = (self.read_discovered)(&found)?;
                let held = std::mem::take(&mut self.known.held);
                self.known.unassigned.extend(found.into_iter().filter(|split| !held.contains(&split.id)));
                self.known.complete = true;
                Ok(self.deal_unassigned())
            }
            EnumeratorEvent::Released { splits, .. } => {
                self.known.unassigned.extend(splits);
                Ok(self.deal_unassigned())
            }
            EnumeratorEvent::Finished { split, .. } => {
                self.known.finish(split);
                Ok(Vec::new())
            }
            EnumeratorEvent::Discovered(_) | EnumeratorEvent::FromReader { .. } => Ok(Vec::new()),
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        position::encode(&self.known).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use thalweg_engine::source::SplitId;

    fn split(name: &str, weight: u64) -> SplitState {
        SplitState { id: SplitId(name.into()), position: weight.to_le_bytes().to_vec() }
    }

    fn weigh(split: &SplitState) -> u64 {
        u64::from_le_bytes(split.position.clone().try_into().unwrap())
    }

    fn assigned(actions: &[EnumeratorAction]) -> Vec<(u32, Vec<SplitState>)> {
        let assigned = actions.iter().filter_map(|action| match action {
            EnumeratorAction::Assign { subtask, splits } => Some((*subtask, splits.clone())),
            _ => None,
        });
        assigned.collect()
    }

    proptest! {
        #[test]
        fn every_split_is_dealt_once_evenly_and_in_any_order_alike(
            weights in proptest::collection::vec(0_u64..1000, 0..30), parallelism in 1_u32..6
        ) {
            let splits: Vec<_> = weights.iter().enumerate().map(|(i, w)| split(&format!("{i:03}"), *w)).collect();
            let mut reversed = splits.clone();
            reversed.reverse();
            let actions = deal(splits.clone(), parallelism, weigh);
            prop_assert_eq!(&actions, &deal(reversed, parallelism, weigh));
            let hands = assigned(&actions);
            let names: Vec<_> = hands.iter().flat_map(|(_, splits)| splits.iter().map(|s| s.id.clone())).collect();
            prop_assert_eq!(names.len(), splits.len());
            prop_assert_eq!(names.into_iter().collect::<BTreeSet<_>>().len(), splits.len());
            let load = |splits: &Vec<SplitState>| splits.iter().map(|s| weigh(s).max(1)).sum::<u64>();
            let loads: Vec<_> = hands.iter().map(|(_, splits)| load(splits)).collect();
            let heaviest = weights.iter().map(|w| (*w).max(1)).max().unwrap_or(0);
            if hands.len() == parallelism as usize {
                prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= heaviest);
            }
        }
    }

    #[test]
    fn a_split_that_nobody_snapshotted_is_finished() {
        let initial = |_| Ok(vec![split("a", 1), split("b", 1)]);
        let mut fresh = FixedSplits::configured(None, weigh, initial, |_| true).unwrap();
        let actions = fresh.handle(EnumeratorEvent::Started { parallelism: 2, splits: vec![] }).unwrap();
        assert_eq!(assigned(&actions).len(), 2);
        assert_eq!(actions.last(), Some(&EnumeratorAction::NoMoreSplits));
        let snapshot = fresh.snapshot();
        let mut restored = FixedSplits::configured(Some(&snapshot), weigh, initial, |_| true).unwrap();
        let started = EnumeratorEvent::Started { parallelism: 1, splits: vec![split("b", 7)] };
        let actions = restored.handle(started).unwrap();
        assert_eq!(assigned(&actions), [(0, vec![split("b", 7)])]);
    }

    #[test]
    fn a_look_before_or_after_the_start_is_dealt_once() {
        let read = |bytes: &[u8]| Ok(vec![split(std::str::from_utf8(bytes).unwrap(), 1)]);
        let started = EnumeratorEvent::Started { parallelism: 1, splits: vec![] };
        for look_first in [true, false] {
            let mut splits = FixedSplits::discovered(None, weigh, read).unwrap();
            let mut events = vec![EnumeratorEvent::Discovered(b"a".to_vec()), started.clone()];
            if !look_first {
                events.reverse();
            }
            events.push(EnumeratorEvent::Discovered(b"late".to_vec()));
            let actions: Vec<_> =
                events.into_iter().flat_map(|event| splits.handle(event).unwrap()).collect();
            assert_eq!(assigned(&actions), [(0, vec![split("a", 1)])]);
            assert_eq!(actions.last(), Some(&EnumeratorAction::NoMoreSplits));
        }
    }

    #[test]
    fn a_split_that_was_dealt_while_a_checkpoint_was_under_way_goes_on_where_its_reader_was() {
        let read = |_: &[u8]| Ok(vec![split("a", 1), split("b", 1)]);
        // The checkpoint was triggered before the look, and its barrier passed the reader after it.
        let before_the_look = FixedSplits::discovered(None, weigh, read).unwrap().snapshot();
        let mut restored = FixedSplits::discovered(Some(&before_the_look), weigh, read).unwrap();
        let started = EnumeratorEvent::Started { parallelism: 1, splits: vec![split("b", 7)] };
        let mut actions = restored.handle(started).unwrap();
        actions.extend(restored.handle(EnumeratorEvent::Discovered(Vec::new())).unwrap());
        assert_eq!(assigned(&actions), [(0, vec![split("b", 7)]), (0, vec![split("a", 1)])]);
    }

    #[test]
    fn what_was_read_to_its_end_goes_on_when_the_source_is_configured_to_more() {
        let initial = |_| Ok(vec![split("a", 1), split("b", 1)]);
        let to = |end: u64| move |split: &SplitState| weigh(split) >= end;
        let started = || EnumeratorEvent::Started { parallelism: 1, splits: vec![] };
        let mut fresh = FixedSplits::configured(None, weigh, initial, to(5)).unwrap();
        fresh.handle(started()).unwrap();
        for split in [split("a", 5), split("b", 7)] {
            fresh.handle(EnumeratorEvent::Finished { subtask: 0, split }).unwrap();
        }
        let snapshot = fresh.snapshot();
        for (end, reopened) in
            [(5, vec![]), (6, vec![split("a", 5)]), (9, vec![split("a", 5), split("b", 7)])]
        {
            let mut restored = FixedSplits::configured(Some(&snapshot), weigh, initial, to(end)).unwrap();
            let actions = restored.handle(started()).unwrap();
            let dealt: Vec<_> = assigned(&actions).into_iter().flat_map(|(_, splits)| splits).collect();
            assert_eq!(dealt, reopened, "{end}");
            assert_eq!(actions.last(), Some(&EnumeratorAction::NoMoreSplits));
        }
        // What its reader still held goes on from there, once.
        let held = EnumeratorEvent::Started { parallelism: 1, splits: vec![split("b", 7)] };
        let mut restored = FixedSplits::configured(Some(&snapshot), weigh, initial, to(9)).unwrap();
        assert_eq!(assigned(&restored.handle(held).unwrap()), [(0, vec![split("a", 5), split("b", 7)])]);
        // A snapshot that forgot what was finished takes up nothing.
        let old = [&[1][..], br#"{"complete":true,"unassigned":[]}"#].concat();
        let mut restored = FixedSplits::configured(Some(&old), weigh, initial, to(9)).unwrap();
        assert_eq!(restored.handle(started()).unwrap(), [EnumeratorAction::NoMoreSplits]);
    }

    #[test]
    fn a_split_that_was_read_to_its_end_before_the_next_look_is_not_dealt_again() {
        let read = |_: &[u8]| Ok(vec![split("a", 1), split("b", 1)]);
        let before_the_look = FixedSplits::discovered(None, weigh, read).unwrap().snapshot();
        let mut second = FixedSplits::discovered(Some(&before_the_look), weigh, read).unwrap();
        second.handle(EnumeratorEvent::Started { parallelism: 1, splits: vec![split("b", 7)] }).unwrap();
        second.handle(EnumeratorEvent::Finished { subtask: 0, split: split("b", 9) }).unwrap();
        let mut third = FixedSplits::discovered(Some(&second.snapshot()), weigh, read).unwrap();
        third.handle(EnumeratorEvent::Started { parallelism: 1, splits: vec![] }).unwrap();
        let actions = third.handle(EnumeratorEvent::Discovered(Vec::new())).unwrap();
        assert_eq!(assigned(&actions), [(0, vec![split("a", 1)])]);
    }

    #[test]
    fn an_unknown_version_is_refused() {
        let error = FixedSplits::discovered(Some(&[9, b'{', b'}']), weigh, |_| Ok(vec![])).err().unwrap();
        assert!(error.to_string().contains("version 9"), "{error}");
    }
}
