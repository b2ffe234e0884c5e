//! The coordinator of a job and the messages it speaks; the driver that runs a whole job in one
//! process, and the simulation that replays one from a seed.
//!
//! [`Coordinator`] decides and does nothing else; [`JobDriver`] carries out what it decides.

mod claim;
mod coordinator;
mod decision;
mod deployment;
mod driver;
mod driver_metrics;
mod embedded;
mod end_report;
mod job_store;
mod messages;
mod outlook;
mod pending;
mod restart;
mod simulation;
mod source_coordinator;
mod store_wait;

pub use coordinator::Coordinator;
pub use decision::{
    Action, AwaitedEnd, CheckpointContent, CoordinatorConfig, Event, Outcome, RestoredJob, TaskRole,
};
pub use driver::{DriverPoll, Inbox, JobDriver, JobEnvironment};
pub use embedded::{JobConfig, JobHandle, JobSummary, StartedFrom, start};
pub use messages::{Cause, FromTask, TaskBlame, TaskId, ToTask};
pub use outlook::outlook;
pub use restart::{Failure, RestartDecision, RestartHistory, RestartStrategy};
pub use simulation::{
    CrashAt, FaultCounts, Moment, ProcessFault, ProcessFaults, SeededFaults, SeededOrder, Simulated,
    SimulatedJob, SimulationSetup, WorkFault, holds_only_what_is_named, seeded_store_faults, simulate,
};
pub use source_coordinator::SourceRole;
pub use store_wait::{Rarely, StoreDecision, StoreWait};
