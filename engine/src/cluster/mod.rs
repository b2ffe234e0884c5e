//! The coordinator of a job and the messages it speaks; the driver that runs a whole job in one
//! process, and the simulation that replays one from a seed.
//!
//! [`Coordinator`] decides and does nothing else; [`JobDriver`] carries out what it decides.

mod coordinator;
mod decision;
mod deployment;
mod driver;
mod embedded;
mod job_store;
mod messages;
mod pending;
mod restart;
mod simulation;
mod source_coordinator;

pub use coordinator::Coordinator;
pub use decision::{Action, CheckpointContent, CoordinatorConfig, Event, Outcome, RestoredJob, TaskRole};
pub use driver::{DriverPoll, Inbox, JobDriver, JobEnvironment};
pub use embedded::{JobConfig, JobHandle, JobSummary, start};
pub use messages::{FromTask, TaskBlame, TaskId, ToTask};
pub use restart::{RestartDecision, RestartStrategy};
pub use simulation::{SeededOrder, Simulated, SimulationSetup, simulate};
pub use source_coordinator::SourceRole;
