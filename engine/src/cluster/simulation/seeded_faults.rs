//! Faults of a run, drawn from a seed: those of the process and those of its store. All simulated
//! jobs have theirs from here, so that a new kind of fault finds every one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::SeededOrder;
use super::faults::{Moment, ProcessFault, ProcessFaults, WorkFault};
use crate::checkpoint::fault::{Call, Fault, FaultPlan, Meaning, Operation};
use crate::runtime::{Clock, ManualClock};
use crate::time::{HOUR, MILLI, Micros};

/// A stall, a pause, a late call or an outage lasts up to so many checkpoint intervals: at an
/// interval of seconds, minutes.
const LENGTH_MAX: usize = 60;
/// So many in a thousand steps have a stall, a pause, a step of the clock or a look too early.
const STEPS_DISTURBED: usize = 4;
/// The system's clock is set by less than so much, forward or back.
const CLOCK_STEP_MAX: Micros = 2 * HOUR;
/// So many in a thousand pieces of work are late.
const WORK_LATE: usize = 40;
/// So many in a thousand looks of a discovery are silent for an hour, and so many fail.
const LOOKS_DISTURBED: usize = 250;
/// A spell in which the log cannot be reached begins at so many in a thousand of its puts.
const LOG_SPELLS: usize = 20;
/// An outage of the whole store, or a spell in which it answers 403, begins at so many in a
/// thousand calls.
const OUTAGES: usize = 3;

/// What happened over all runs that share it: a test is worth what these are.
#[derive(Debug, Default)]
pub struct FaultCounts {
    /// Crashes of the process.
    pub crashes: AtomicU64,
    /// Tasks that failed.
    pub task_failures: AtomicU64,
    /// Threads that got no processor for a while.
    pub stalls: AtomicU64,
    /// Whole processes that stood still for a while.
    pub pauses: AtomicU64,
    /// Times that the system's clock was set.
    pub clock_steps: AtomicU64,
    /// Times that a discovery looked again before it was time.
    pub early_looks: AtomicU64,
    /// Pieces of background work that were late.
    pub late_work: AtomicU64,
    /// Looks of a discovery that were silent for an hour or came to nothing.
    pub looks: AtomicU64,
    /// Calls of a store that failed, for whatever reason.
    pub store_faults: AtomicU64,
    /// Calls among them that were refused as by a 403.
    pub refusals: AtomicU64,
    /// Spells in which the log could not be reached.
    pub log_spells: AtomicU64,
    /// Times that a whole store was away or refused everything.
    pub outages: AtomicU64,
    /// Deletions that were asked for.
    pub deletes: AtomicU64,
}

impl FaultCounts {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl std::fmt::Display for FaultCounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counters = [
            (&self.crashes, "crashes"),
            (&self.task_failures, "task failures"),
            (&self.stalls, "stalls"),
            (&self.pauses, "pauses"),
            (&self.clock_steps, "steps of the clock"),
            (&self.early_looks, "early looks"),
            (&self.late_work, "late pieces of work"),
            (&self.looks, "disturbed looks"),
            (&self.store_faults, "store faults"),
            (&self.refusals, "refusals"),
            (&self.log_spells, "spells of the log"),
            (&self.outages, "outages"),
            (&self.deletes, "deletes"),
        ];
        for (index, (counter, what)) in counters.into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} {what}", counter.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

/// The faults of one run's process. Tasks fail as often as the process crashes.
pub struct SeededFaults {
    order: SeededOrder,
    /// The process crashes within about so many steps, and a task fails within as many.
    steps: usize,
    crash_at: u64,
    fail_at: u64,
    /// How long is long here, in microseconds.
    interval: Micros,
    counts: Arc<FaultCounts>,
}

impl SeededFaults {
    /// The process crashes before its step `steps`; `interval` is that of its checkpoints.
    pub fn new(mut order: SeededOrder, steps: usize, interval: Micros, counts: Arc<FaultCounts>) -> Self {
        let crash_at = order.below(steps) as u64;
        let fail_at = order.below(steps) as u64;
        SeededFaults { order, steps, crash_at, fail_at, interval, counts }
    }

    fn length(&mut self) -> Micros {
        // Many short ones and a few long ones.
        let longest = 1 + self.order.below(LENGTH_MAX);
        self.interval * self.order.below(longest) as Micros + self.order.below(MILLI as usize) as Micros
    }

    /// What does not end anything.
    fn disturbance(&mut self, moment: &Moment) -> ProcessFault {
        match self.order.below(4) {
            0 if moment.tasks > 0 => {
                FaultCounts::count(&self.counts.stalls);
                ProcessFault::TaskStalls(self.order.below(moment.tasks), self.length())
            }
            0 | 1 => {
                FaultCounts::count(&self.counts.pauses);
                ProcessFault::Pause(self.length())
            }
            2 => {
                FaultCounts::count(&self.counts.clock_steps);
                ProcessFault::ClockSteps(
                    self.order.below(2 * CLOCK_STEP_MAX as usize) as Micros - CLOCK_STEP_MAX,
                )
            }
            _ => {
                FaultCounts::count(&self.counts.early_looks);
                ProcessFault::LooksAgain
            }
        }
    }
}

impl ProcessFaults for SeededFaults {
    fn strike(&mut self, moment: &Moment) -> Option<ProcessFault> {
        if moment.step >= self.crash_at {
            FaultCounts::count(&self.counts.crashes);
            return Some(ProcessFault::Crash);
        }
        if moment.step >= self.fail_at && moment.tasks > 0 {
            FaultCounts::count(&self.counts.task_failures);
            // Half of the failures have another close behind: in the restart, or just after it.
            let next = if self.order.below(2) == 0 { 1 + self.steps / 20 } else { self.steps };
            self.fail_at = moment.step + 1 + self.order.below(next) as u64;
            return Some(ProcessFault::TaskFails(self.order.below(moment.tasks)));
        }
        if !self.order.happens(STEPS_DISTURBED) {
            return None;
        }
        Some(self.disturbance(moment))
    }

    fn on_work(&mut self, name: &str) -> WorkFault {
        if name.starts_with("discovery ") && self.order.happens(LOOKS_DISTURBED) {
            FaultCounts::count(&self.counts.looks);
            return if self.order.below(2) == 0 { WorkFault::Late(HOUR) } else { WorkFault::Fails };
        }
        if !self.order.happens(WORK_LATE) {
            return WorkFault::None;
        }
        FaultCounts::count(&self.counts.late_work);
        WorkFault::Late(self.length())
    }
}

/// A spell of a store.
enum Spell {
    /// So many calls that concern the log fail.
    Log(usize),
    /// All fail until then.
    Away(Micros),
    /// All are refused until then.
    Refusing(Micros),
}

/// The faults of one run's store: so many in a thousand calls fail, half of them after they have
/// taken effect; and there are spells in which the log cannot be reached, so that nobody knows
/// whether an entry stands, or the whole store is away, or refuses everything (H6). `interval` is
/// that of the checkpoints.
pub fn seeded_store_faults(
    mut order: SeededOrder,
    per_thousand: usize,
    interval: Micros,
    clock: ManualClock,
    counts: Arc<FaultCounts>,
) -> FaultPlan {
    let mut spell = None;
    Box::new(move |call: &Call<'_>| {
        if call.operation == Operation::Delete {
            FaultCounts::count(&counts.deletes);
        }
        if per_thousand == 0 {
            return Fault::None;
        }
        let is_log = call.meaning == Meaning::Log;
        if spell.is_none() {
            spell = begun(&mut order, call, interval, clock.monotonic(), &counts);
        }
        let fault = match &mut spell {
            Some(Spell::Away(until)) if clock.monotonic() < *until => Fault::FailBefore,
            Some(Spell::Refusing(until)) if clock.monotonic() < *until => Fault::Refuse,
            Some(Spell::Log(left)) if *left > 0 => {
                *left -= usize::from(is_log);
                if is_log { lost(&mut order) } else { Fault::None }
            }
            _ => {
                spell = None;
                if order.happens(per_thousand) { lost(&mut order) } else { Fault::None }
            }
        };
        if fault != Fault::None {
            FaultCounts::count(&counts.store_faults);
        }
        if fault == Fault::Refuse {
            FaultCounts::count(&counts.refusals);
        }
        fault
    })
}

fn lost(order: &mut SeededOrder) -> Fault {
    if order.below(2) == 0 { Fault::FailBefore } else { Fault::FailAfter }
}

fn begun(
    order: &mut SeededOrder,
    call: &Call<'_>,
    interval: Micros,
    now: Micros,
    counts: &FaultCounts,
) -> Option<Spell> {
    let enters = call.meaning == Meaning::Log && call.operation == Operation::PutIfAbsent;
    if enters && order.happens(LOG_SPELLS) {
        FaultCounts::count(&counts.log_spells);
        return Some(Spell::Log(1 + order.below(30)));
    }
    if !order.happens(OUTAGES) {
        return None;
    }
    FaultCounts::count(&counts.outages);
    let until = now + interval * (1 + order.below(LENGTH_MAX)) as Micros;
    Some(if order.below(2) == 0 { Spell::Away(until) } else { Spell::Refusing(until) })
}
