//! Timers as an operator uses them: event and processing time, durable, for the current key.
//!
//! Semantics are those of Flink's `TimerService`: one timer for each (key, namespace, time);
//! setting it again changes nothing; due timers fire in the order of their times.

use super::keyed::KeyedState;
use super::timer_key::{Clock, Position, Timer};
use super::timer_overlay::LayeredTimers;
use crate::Result;
use crate::time::{Micros, Watermark};

impl KeyedState {
    /// Sets an event-time timer for the current key: due when the watermark reaches `time`.
    ///
    /// # Errors
    /// An external error of the store, when something must be written to make room.
    pub fn register_event_timer(&mut self, time: Micros, namespace: &[u8]) -> Result<()> {
        self.register(Clock::Event, time, namespace)
    }

    /// Deletes an event-time timer of the current key; none there is no error.
    ///
    /// # Errors
    /// As [`KeyedState::register_event_timer`].
    pub fn delete_event_timer(&mut self, time: Micros, namespace: &[u8]) -> Result<()> {
        self.delete(Clock::Event, time, namespace)
    }

    /// Sets a processing-time timer for the current key.
    ///
    /// # Errors
    /// As [`KeyedState::register_event_timer`].
    pub fn register_processing_timer(&mut self, time: Micros, namespace: &[u8]) -> Result<()> {
        self.register(Clock::Processing, time, namespace)
    }

    /// Deletes a processing-time timer of the current key; none there is no error.
    ///
    /// # Errors
    /// As [`KeyedState::register_event_timer`].
    pub fn delete_processing_timer(&mut self, time: Micros, namespace: &[u8]) -> Result<()> {
        self.delete(Clock::Processing, time, namespace)
    }

    /// Takes the earliest event-time timer with `time <= watermark` and makes its key the current
    /// one. Timers of one time come in the order of key group, key and namespace.
    ///
    /// # Errors
    /// An external error of the store.
    pub fn next_due_event_timer(&mut self, watermark: Watermark) -> Result<Option<Timer>> {
        self.next_due(Clock::Event, watermark.0)
    }

    /// Takes the earliest processing-time timer with `time <= now` and makes its key the current
    /// one.
    ///
    /// # Errors
    /// An external error of the store.
    pub fn next_due_processing_timer(&mut self, now: Micros) -> Result<Option<Timer>> {
        self.next_due(Clock::Processing, now)
    }

    /// When the earliest processing-time timer is due; for
    /// [`wake_at`](crate::operator::OperatorContext::wake_at).
    ///
    /// # Errors
    /// An external error of the store.
    pub fn earliest_processing_timer(&mut self) -> Result<Option<Micros>> {
        self.with_timers(Clock::Processing, |queue, layers| queue.earliest(layers))
    }

    /// When the earliest event-time timer is due.
    ///
    /// # Errors
    /// An external error of the store.
    pub fn earliest_event_timer(&mut self) -> Result<Option<Micros>> {
        self.with_timers(Clock::Event, |queue, layers| queue.earliest(layers))
    }

    fn register(&mut self, clock: Clock, time: Micros, namespace: &[u8]) -> Result<()> {
        let position = self.position(time, namespace)?;
        self.make_room_for_writes()?;
        match clock {
            Clock::Event => self.event_timers.register(position, &mut self.timers),
            Clock::Processing => self.processing_timers.register(position, &mut self.timers),
        }
        Ok(())
    }

    fn delete(&mut self, clock: Clock, time: Micros, namespace: &[u8]) -> Result<()> {
        let position = self.position(time, namespace)?;
        self.make_room_for_writes()?;
        match clock {
            Clock::Event => self.event_timers.delete(&position, &mut self.timers),
            Clock::Processing => self.processing_timers.delete(&position, &mut self.timers),
        }
        Ok(())
    }

    fn position(&self, time: Micros, namespace: &[u8]) -> Result<Position> {
        let current = &self.core.current;
        current.check(self.core.owned)?;
        Ok(Position::new(time, current.group(), current.bytes(), namespace))
    }

    fn next_due(&mut self, clock: Clock, until: Micros) -> Result<Option<Timer>> {
        let Some(position) = self.with_timers(clock, |queue, layers| queue.take_due(until, layers))? else {
            return Ok(None);
        };
        match clock {
            Clock::Event => self.event_timers.delete_stored(&position, &mut self.timers),
            Clock::Processing => self.processing_timers.delete_stored(&position, &mut self.timers),
        }
        let timer = position.timer()?;
        self.set_current_key(timer.hash, &timer.key);
        self.make_room_for_writes()?;
        Ok(Some(timer))
    }

    fn with_timers<R>(
        &mut self,
        clock: Clock,
        ask: impl FnOnce(&mut super::timer_queue::TimerQueue, &LayeredTimers<'_>) -> Result<R>,
    ) -> Result<R> {
        let layers = LayeredTimers {
            store: self.core.store.as_ref(),
            frozen: self.core.frozen.iter().map(|layer| layer.timers.as_ref()).collect(),
            active: &self.timers,
        };
        match clock {
            Clock::Event => ask(&mut self.event_timers, &layers),
            Clock::Processing => ask(&mut self.processing_timers, &layers),
        }
    }
}
