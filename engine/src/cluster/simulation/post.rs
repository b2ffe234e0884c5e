//! Commands on their way to the tasks of a simulated process: each task's arrive in their order, and
//! in none with what comes through its channels.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::{STEP_MICROS_MAX, SeededOrder};
use crate::cluster::ToTask;
use crate::runtime::{Clock, Mailbox, ManualClock};
use crate::time::Micros;

/// A command to a task is on its way for less than so many, should it be late.
const LATE_MICROS_MAX: usize = 20_000;

/// What is on its way to all tasks.
pub(super) struct Post {
    order: SeededOrder,
    clock: ManualClock,
    boxes: Vec<Letters>,
}

/// What is on its way to one task, with the times at which it is there.
struct Letters {
    mailbox: Weak<Mailbox>,
    is_source: bool,
    waiting: VecDeque<(Micros, ToTask)>,
}

impl Post {
    /// A post without mailboxes.
    pub fn new(order: SeededOrder, clock: ManualClock) -> Post {
        Post { order, clock, boxes: Vec::new() }
    }

    /// The number of the next mailbox.
    pub fn next_number(&self) -> usize {
        self.boxes.len()
    }

    /// Serves one more mailbox.
    pub fn serve(&mut self, mailbox: &Arc<Mailbox>) {
        let mailbox = Arc::downgrade(mailbox);
        self.boxes.push(Letters { mailbox, is_source: false, waiting: VecDeque::new() });
    }

    /// Mostly little: what is late now and then comes behind several barriers. Triggers of sources
    /// are not late, nor what was said before them: a full sink that has heard of a checkpoint takes
    /// what they give until they have (`Operator::is_full`).
    pub fn accept(&mut self, number: usize, command: ToTask) {
        let in_time = self.clock.monotonic() + self.order.below(STEP_MICROS_MAX) as Micros;
        let is_late = self.order.below(4) == 0;
        let late_at = in_time + self.order.below(LATE_MICROS_MAX) as Micros;
        let Letters { is_source, waiting, .. } = &mut self.boxes[number];
        *is_source |= matches!(command, ToTask::AssignSplits(_));
        if *is_source && matches!(command, ToTask::Trigger { .. }) {
            waiting.iter_mut().for_each(|(at, _)| *at = in_time.min(*at));
            waiting.push_back((in_time, command));
            return;
        }
        let at = if is_late { late_at } else { in_time };
        let at = waiting.back().map_or(at, |(last, _)| at.max(*last));
        waiting.push_back((at, command));
    }

    /// Hands over the next command of a mailbox.
    pub fn deliver(&mut self, number: usize) {
        let Letters { mailbox, waiting, .. } = &mut self.boxes[number];
        if let (Some(mailbox), Some((_, command))) = (mailbox.upgrade(), waiting.pop_front()) {
            mailbox.deliver(command);
        }
    }

    /// When the next command is there.
    pub fn next_due(&self) -> Option<Micros> {
        self.boxes.iter().filter_map(|letters| letters.waiting.front()).map(|(at, _)| *at).min()
    }

    /// The mailboxes for which something is there.
    pub fn due(&self, now: Micros) -> Vec<usize> {
        let due = |letters: &Letters| letters.waiting.front().is_some_and(|(at, _)| *at <= now);
        self.boxes.iter().enumerate().filter(|(_, letters)| due(letters)).map(|(number, _)| number).collect()
    }
}
