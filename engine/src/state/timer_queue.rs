//! The timers of one clock, in time order, with a bounded head in memory.
//!
//! The head holds *all* timers up to a position ([`Reach`]); what lies beyond is in the store and
//! its overlays only, and of that a lower bound of the time is kept for each key group. So a
//! watermark with nothing due touches no disk, a timer that is set and deleted within the head
//! never reaches it, and any number of timers fire in bounded memory.

use std::collections::{BTreeSet, BinaryHeap};

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

    /// The earliest timer with `time <= until`, to be fired; it stays until it is deleted.
    ///
    /// # Errors
    /// An external error of the store.
    pub(super) fn due(&mut self, until: Micros, layers: &LayeredTimers<'_>) -> Result<Option<Position>> {
        while self.head.is_empty() && self.earliest_beyond.is_some_and(|earliest| earliest <= until) {
            self.refill(layers)?;
        }
        Ok(self.head.first().filter(|first| first.time() <= until).cloned())
    }

    /// Reads the next timers into the empty head: the earliest of all key groups, up to half of
    /// what the head may hold.
    fn refill(&mut self, layers: &LayeredTimers<'_>) -> Result<()> {
        let bounds = self.beyond.iter().enumerate();
        let mut order: Vec<(Position, usize)> =
            bounds.filter_map(|(index, bound)| Some((bound.clone()?, index))).collect();
        order.sort_unstable();
        let mut best = Best { heap: BinaryHeap::new(), bytes: 0, bytes_max: self.head_bytes_max / 2 };
        for (bound, index) in order {
            if best.is_full() && best.heap.peek().is_some_and(|last| bound > *last) {
                break;
            }
            self.beyond[index] = None;
            self.read_group(&bound, &mut best, layers)?;
        }
        self.reach = match best.heap.peek() {
            Some(last) if self.beyond.iter().any(Option::is_some) => Reach::Through(last.clone()),
            _ => Reach::All,
        };
        self.earliest_beyond = self.beyond.iter().flatten().map(Position::time).min();
        self.head_bytes = best.bytes;
        self.head = best.heap.into_iter().collect();
        Ok(())
    }

    fn read_group(&mut self, bound: &Position, best: &mut Best, layers: &LayeredTimers<'_>) -> Result<()> {
        let (from, to) = (bound.stored(self.clock), group_end(bound.group(), self.clock));
        let mut left = Vec::new();
        layers.scan(&from, &to, &mut |stored| {
            let position = Position::of_stored(stored)?;
            if best.is_full() && best.heap.peek().is_some_and(|last| *last < position) {
                left.push(position);
                return Ok(false);
            }
            best.push(position, &mut left);
            Ok(true)
        })?;
        for position in left {
            self.note_beyond(&position);
        }
        Ok(())
    }
}

/// The earliest timers seen so far, up to a number of bytes.
struct Best {
    heap: BinaryHeap<Position>,
    bytes: usize,
    bytes_max: usize,
}

impl Best {
    fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max && !self.heap.is_empty()
    }

    /// Adds a timer; those that no longer fit go to `left`.
    fn push(&mut self, position: Position, left: &mut Vec<Position>) {
        self.bytes += position.bytes();
        self.heap.push(position);
        while self.heap.len() > 1
            && let Some(last) = self.heap.peek()
            && self.bytes - last.bytes() >= self.bytes_max
        {
            self.bytes -= last.bytes();
            left.extend(self.heap.pop());
        }
    }
}
