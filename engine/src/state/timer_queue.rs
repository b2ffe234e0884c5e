//! The timers of one clock, in time order, with a bounded head in memory.
//!
//! The head holds *all* timers up to a position ([`Reach`]); what lies beyond is in the store and
//! its overlays only, and of that a lower bound of the time is kept for each key group. So a
//! watermark with nothing due touches no disk, a timer that is set and deleted within the head
//! never reaches it, and any number of timers fire in bounded memory.

use std::collections::BTreeSet;

use super::key_group::{KeyGroup, KeyGroupRange};
use super::timer_key::{Clock, Position, group_end};
use super::timer_overlay::{Change, LayeredTimers, TimerOverlay};
use crate::Result;
use crate::time::Micros;

/// Up to where the head is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reach {
    /// Nothing is known: the state was restored.
    Nothing,
    /// All timers up to this one, itself included.
    Through(Position),
    /// All timers there are.
    All,
}

/// The timers of one clock.
pub(super) struct TimerQueue {
    clock: Clock,
    owned: KeyGroupRange,
    head: BTreeSet<Position>,
    head_bytes: usize,
    head_bytes_max: usize,
    reach: Reach,
    /// For each owned key group a lower bound of what lies beyond the head; `None` for nothing.
    /// Reads start there, behind what has fired.
    beyond: Vec<Option<Position>>,
    /// The lowest of `beyond`.
    earliest_beyond: Option<Micros>,
}

impl TimerQueue {
    pub(super) fn new(clock: Clock, owned: KeyGroupRange, head_bytes_max: usize, restored: bool) -> Self {
        let lowest = |group: u32| Position::new(Micros::MIN, KeyGroup(group as u16), &[], &[]);
        TimerQueue {
            clock,
            owned,
            head: BTreeSet::new(),
            head_bytes: 0,
            head_bytes_max,
            reach: if restored { Reach::Nothing } else { Reach::All },
            beyond: (owned.first..owned.end).map(|group| restored.then(|| lowest(group))).collect(),
            earliest_beyond: restored.then_some(Micros::MIN),
        }
    }

    #[cfg(test)]
    pub(super) fn head_bytes(&self) -> usize {
        self.head_bytes
    }

    fn reaches(&self, position: &Position) -> bool {
        match &self.reach {
            Reach::Nothing => false,
            Reach::Through(last) => position <= last,
            Reach::All => true,
        }
    }

    fn note_beyond(&mut self, position: &Position) {
        let (index, time) = (self.index(position.group()), position.time());
        if self.beyond[index].as_ref().is_none_or(|bound| position < bound) {
            self.beyond[index] = Some(position.clone());
        }
        self.earliest_beyond = Some(self.earliest_beyond.map_or(time, |earliest| earliest.min(time)));
    }

    fn index(&self, group: KeyGroup) -> usize {
        (u32::from(group.0) - self.owned.first) as usize
    }

    /// Sets a timer; one that is there already stays as it is.
    pub(super) fn register(&mut self, position: Position, overlay: &mut TimerOverlay) {
        let stored = position.stored(self.clock);
        if !self.reaches(&position) {
            self.note_beyond(&position);
            overlay.insert(stored, Change::Put { fresh: false });
            return;
        }
        let bytes = position.bytes();
        if !self.head.insert(position) {
            return;
        }
        self.head_bytes += bytes;
        let fresh = overlay.get(&stored).is_none();
        overlay.insert(stored, Change::Put { fresh });
        if self.head_bytes > self.head_bytes_max {
            self.shorten_head();
        }
    }

    /// Deletes a timer if it is there.
    pub(super) fn delete(&mut self, position: &Position, overlay: &mut TimerOverlay) {
        if self.reaches(position) {
            if !self.head.remove(position) {
                return;
            }
            self.head_bytes -= position.bytes();
        }
        self.delete_stored(position, overlay);
    }

    /// Deletes a timer that is no longer in the head.
    pub(super) fn delete_stored(&self, position: &Position, overlay: &mut TimerOverlay) {
        let stored = position.stored(self.clock);
        match overlay.get(&stored) {
            Some(Change::Put { fresh: true }) => overlay.remove(&stored),
            _ => overlay.insert(stored, Change::Delete),
        }
    }

    /// Leaves the later half of the head to the store.
    fn shorten_head(&mut self) {
        while self.head_bytes > self.head_bytes_max / 2 && self.head.len() > 1 {
            let Some(last) = self.head.pop_last() else { break };
            self.head_bytes -= last.bytes();
            self.note_beyond(&last);
        }
        if let Some(last) = self.head.last() {
            self.reach = Reach::Through(last.clone());
        }
    }

    /// The earliest timer's time.
    ///
    /// # Errors
    /// An external error of the store.
    pub(super) fn earliest(&mut self, layers: &LayeredTimers<'_>) -> Result<Option<Micros>> {
        while self.head.is_empty() && self.earliest_beyond.is_some() {
            self.refill(layers)?;
        }
        Ok(self.head.first().map(Position::time))
    }

    /// Takes the earliest timer with `time <= until` out of the head; the caller deletes it from
    /// the store too.
    ///
    /// # Errors
    /// An external error of the store.
    pub(super) fn take_due(&mut self, until: Micros, layers: &LayeredTimers<'_>) -> Result<Option<Position>> {
        while self.head.is_empty() && self.earliest_beyond.is_some_and(|earliest| earliest <= until) {
            self.refill(layers)?;
        }
        if self.head.first().is_none_or(|first| first.time() > until) {
            return Ok(None);
        }
        let due = self.head.pop_first();
        self.head_bytes -= due.as_ref().map_or(0, Position::bytes);
        Ok(due)
    }

    /// Reads the next timers into the empty head: a share of each key group, and of all these
    /// what lies before the first that was not read.
    fn refill(&mut self, layers: &LayeredTimers<'_>) -> Result<()> {
        let bounds = self.beyond.iter().enumerate();
        let mut order: Vec<(Position, usize)> =
            bounds.filter_map(|(index, bound)| Some((bound.clone()?, index))).collect();
        order.sort_unstable();
        let mut refill = Refill {
            found: Vec::new(),
            horizon: None,
            share_bytes: self.head_bytes_max / 2 / order.len().max(1),
        };
        for (bound, index) in order {
            if refill.is_beyond(&bound) {
                break;
            }
            self.beyond[index] = refill.read_group(&bound, self.clock, layers)?;
        }
        let Refill { mut found, horizon, .. } = refill;
        if let Some(horizon) = &horizon {
            for position in found.extract_if(.., |position| *position > *horizon) {
                self.note_beyond(&position);
            }
        }
        self.reach = horizon.map_or(Reach::All, Reach::Through);
        self.earliest_beyond = self.beyond.iter().flatten().map(Position::time).min();
        self.head_bytes = found.iter().map(Position::bytes).sum();
        self.head = found.into_iter().collect();
        Ok(())
    }
}

/// A refill of the head on its way.
struct Refill {
    found: Vec<Position>,
    /// The last timer before the first that was left unread; `None` while none was.
    horizon: Option<Position>,
    share_bytes: usize,
}

impl Refill {
    fn is_beyond(&self, position: &Position) -> bool {
        self.horizon.as_ref().is_some_and(|horizon| position > horizon)
    }

    /// Reads a share of a key group from `bound` on; answers the first timer left unread.
    fn read_group(
        &mut self,
        bound: &Position,
        clock: Clock,
        layers: &LayeredTimers<'_>,
    ) -> Result<Option<Position>> {
        let (from, to) = (bound.stored(clock), group_end(bound.group(), clock));
        let (mut left, mut bytes) = (None, 0);
        layers.scan(&from, &to, &mut |stored| {
            let position = Position::of_stored(stored)?;
            if self.is_beyond(&position) {
                left = Some(position);
            } else if bytes > 0 && bytes >= self.share_bytes {
                // Not beyond, so what was read last of this group is the earliest last.
                self.horizon = self.found.last().cloned();
                left = Some(position);
            } else {
                bytes += position.bytes();
                self.found.push(position);
            }
            Ok(left.is_none())
        })?;
        Ok(left)
    }
}
