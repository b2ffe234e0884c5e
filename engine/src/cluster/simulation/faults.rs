//! What befalls a simulated process beside what its job does: who decides it, and what can be
//! decided. The store's faults are its own (`checkpoint/fault.rs`); `seeded_faults.rs` draws both.

use crate::checkpoint::CheckpointId;
use crate::time::Micros;

/// Where a simulated process stands before a step.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Steps of this run so far.
    pub step: u64,
    /// Restarts of the tasks in this run.
    pub restarts: u32,
    /// The newest checkpoint that is published.
    pub published: Option<CheckpointId>,
    /// Tasks that are not gone.
    pub tasks: usize,
    /// Whether a discovery is looking.
    pub looking: bool,
}

/// What befalls a process between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessFault {
    /// Everything is dropped at once but the store and the world outside. The run is over.
    Crash,
    /// The n-th (modulo their number) of the tasks that are not gone fails. A restart can help.
    TaskFails(usize),
    /// The thread of the n-th task gets no processor for so many microseconds.
    TaskStalls(usize, Micros),
    /// The whole process stands still for so many microseconds.
    Pause(Micros),
    /// The system's clock is set so many microseconds forward, or back.
    ClockSteps(Micros),
    /// Discoveries look again before it is time, and say what they have said.
    LooksAgain,
}

/// What befalls a piece of background work: a call of the store, a look of a discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkFault {
    /// Nothing.
    None,
    /// It begins so many microseconds late: a store that is slow, a discovery that is silent.
    Late(Micros),
    /// It comes to nothing, and whoever waits for it is told so.
    Fails,
}

/// Decides what befalls a process.
pub trait ProcessFaults {
    /// Asked before each step.
    fn strike(&mut self, moment: &Moment) -> Option<ProcessFault>;

    /// Asked once for each piece of background work; `name` says what it is.
    fn on_work(&mut self, name: &str) -> WorkFault {
        let _ = name;
        WorkFault::None
    }
}

/// A crash after so many steps and nothing else; `None`: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashAt(pub Option<u64>);

impl ProcessFaults for CrashAt {
    fn strike(&mut self, moment: &Moment) -> Option<ProcessFault> {
        (self.0 == Some(moment.step)).then_some(ProcessFault::Crash)
    }
}
