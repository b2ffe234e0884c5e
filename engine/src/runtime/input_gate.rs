//! The inputs of a task: fair choice between channels, the combined watermark, and the alignment
//! of barriers.
//!
//! An input that has ended takes no part in the watermark: see [`InputWatermarks`].
//!
//! The rule: from the first barrier of a checkpoint on, a channel that has delivered it is not
//! read until all others have; a channel past `End` counts as aligned. A barrier of a later
//! checkpoint, or the news that it was aborted, ends an alignment; a barrier of an earlier one is
//! of a checkpoint that is over, and changes nothing. (Carbone et al., "Lightweight
//! Asynchronous Snapshots for Distributed Dataflows", 2015.)

use std::collections::VecDeque;
use std::sync::Arc;

use super::channel::TARGET_ROWS;
use super::{Channel, Element};
use crate::Result;
use crate::checkpoint::{Barrier, CheckpointId};
use crate::operator::Waker;
use crate::record::Batch;
use crate::time::{InputWatermarks, Watermark};

struct Input {
    channel: Arc<Channel>,
    /// The operator's input that this channel feeds.
    index: usize,
    blocked: bool,
    data_ended: bool,
    ended: bool,
}

/// What the gate has for the task.
#[derive(Debug)]
pub enum GateEvent {
    /// Rows of an input.
    Batch(usize, Batch),
    /// The combined watermark rose.
    Watermark(Watermark),
    /// All inputs are idle now, or one is active again.
    Idle(bool),
    /// The barrier has come on every channel.
    Barrier(Barrier),
    /// No row follows on an input.
    EndOfData(usize),
    /// Nothing follows at all.
    End,
    /// Nothing is there.
    Empty,
}

/// The reading ends of a task's incoming edges.
pub struct InputGate {
    inputs: Vec<Input>,
    watermarks: InputWatermarks,
    was_idle: bool,
    aligning: Option<Barrier>,
    /// Barriers of checkpoints up to this one are over.
    settled: Option<CheckpointId>,
    next: usize,
    joined: Vec<Batch>,
    /// What [`InputGate::next_barrier`] has taken on its way.
    passed: VecDeque<GateEvent>,
}

impl InputGate {
    /// A gate over channels, each with the operator's input that it feeds.
    pub fn new(channels: Vec<(usize, Arc<Channel>)>, waker: &Waker) -> InputGate {
        let watermarks = InputWatermarks::new(channels.len());
        let inputs = channels
            .into_iter()
            .map(|(index, channel)| {
                channel.set_receiver(waker.clone());
                Input { channel, index, blocked: false, data_ended: false, ended: false }
            })
            .collect();
        InputGate {
            inputs,
            watermarks,
            was_idle: false,
            aligning: None,
            settled: None,
            next: 0,
            joined: Vec::new(),
            passed: VecDeque::new(),
        }
    }

    /// Says which channels, by index, carry no watermarks though others do.
    #[must_use]
    pub fn without_watermarks(mut self, channels: &[usize]) -> InputGate {
        channels.iter().for_each(|&index| self.watermarks.set_timeless(index));
        self
    }

    /// The next event. Small batches that wait in one channel come joined.
    ///
    /// # Errors
    /// An internal error from joining batches.
    pub fn next_event(&mut self) -> Result<GateEvent> {
        if let Some(event) = self.passed.pop_front().or_else(|| self.idle_changed()) {
            return Ok(event);
        }
        let count = self.inputs.len();
        for offset in 0..count {
            let index = (self.next + offset) % count;
            if let Some(event) = self.event_of(index)? {
                self.next = (index + 1) % count;
                return Ok(event);
            }
        }
        Ok(GateEvent::Empty)
    }

    /// The next barrier, if it has come on every channel with no row before it. What else comes
    /// before it (watermarks, ends) changes no state, and is delivered behind it, in its order.
    pub fn next_barrier(&mut self) -> Option<Barrier> {
        for index in 0..self.inputs.len() {
            while !self.inputs[index].blocked && !self.inputs[index].ended {
                let Some(element) = self.inputs[index].channel.try_receive_control() else { break };
                match self.control(index, element).or_else(|| self.idle_changed()) {
                    Some(GateEvent::Barrier(barrier)) => return Some(barrier),
                    event => self.passed.extend(event),
                }
            }
        }
        None
    }

    /// Reads one channel up to its next event.
    fn event_of(&mut self, index: usize) -> Result<Option<GateEvent>> {
        while !self.inputs[index].blocked && !self.inputs[index].ended {
            let input = self.inputs[index].index;
            self.inputs[index].channel.take_batches(TARGET_ROWS, &mut self.joined);
            if let Some(first) = self.joined.first() {
                let batch = Batch::concat(&first.schema(), &self.joined)?;
                self.joined.clear();
                return Ok(Some(GateEvent::Batch(input, batch)));
            }
            let event = match self.inputs[index].channel.try_receive() {
                None => return Ok(None),
                Some(Element::Batch(batch)) => Some(GateEvent::Batch(input, batch)),
                Some(control) => self.control(index, control),
            };
            if let Some(event) = event.or_else(|| self.idle_changed()) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn idle_changed(&mut self) -> Option<GateEvent> {
        let idle = self.watermarks.is_idle();
        (idle != self.was_idle).then(|| {
            self.was_idle = idle;
            GateEvent::Idle(idle)
        })
    }

    fn control(&mut self, index: usize, element: Element) -> Option<GateEvent> {
        match element {
            Element::Batch(_) => None,
            Element::Watermark(watermark) => {
                self.watermarks.update(index, watermark).map(GateEvent::Watermark)
            }
            Element::Idle => self.watermarks.set_active(index, false).map(GateEvent::Watermark),
            Element::Active => self.watermarks.set_active(index, true).map(GateEvent::Watermark),
            Element::Barrier(barrier) => self.barrier(index, barrier),
            Element::EndOfData => {
                self.inputs[index].data_ended = true;
                let input = self.inputs[index].index;
                let all =
                    self.inputs.iter().filter(|other| other.index == input).all(|other| other.data_ended);
                all.then_some(GateEvent::EndOfData(input))
            }
            Element::End => {
                self.inputs[index].ended = true;
                if self.inputs.iter().all(|input| input.ended) {
                    return Some(GateEvent::End);
                }
                self.aligned()
            }
        }
    }

    fn barrier(&mut self, index: usize, barrier: Barrier) -> Option<GateEvent> {
        if Some(barrier.checkpoint) <= self.settled {
            return None;
        }
        if let Some(current) = self.aligning
            && current.checkpoint != barrier.checkpoint
        {
            // Whichever is the older one is over: its abort is on its way.
            if current.checkpoint > barrier.checkpoint {
                return None;
            }
            self.unblock();
        }
        self.aligning = Some(barrier);
        self.inputs[index].blocked = true;
        self.aligned()
    }

    fn aligned(&mut self) -> Option<GateEvent> {
        let barrier = self.aligning?;
        if !self.inputs.iter().all(|input| input.blocked || input.ended) {
            return None;
        }
        self.unblock();
        self.settled = Some(barrier.checkpoint);
        Some(GateEvent::Barrier(barrier))
    }

    fn unblock(&mut self) {
        self.aligning = None;
        for input in &mut self.inputs {
            input.blocked = false;
        }
    }

    /// A checkpoint was aborted: channels that wait for its other barriers are read again.
    pub fn abort(&mut self, checkpoint: CheckpointId) {
        self.settled = self.settled.max(Some(checkpoint));
        // An earlier one that is still being aligned is over too.
        if self.aligning.is_some_and(|aligning| aligning.checkpoint <= checkpoint) {
            self.unblock();
        }
    }

    /// Whether a channel waits for the barriers of others.
    pub fn is_aligning(&self) -> bool {
        self.aligning.is_some()
    }
}

#[cfg(test)]
#[path = "input_gate_tests.rs"]
mod tests;
