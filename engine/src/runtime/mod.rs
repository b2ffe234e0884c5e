//! Runs tasks: channels between them, partitioners, chains, and what drives them.
//!
//! A task is a plain state machine ([`Task`]); the threaded executor gives each one a thread, the
//! simulated one polls them all in one thread, in an order that a seed decides. This module knows
//! state and checkpoints by their traits only.

mod background;
mod chain;
#[cfg(debug_assertions)]
mod changelog;
mod channel;
mod clock;
mod edge_writer;
mod element;
#[cfg(debug_assertions)]
mod grammar;
mod input_gate;
mod mailbox;
mod source_head;
mod task;
mod task_environment;
#[cfg(test)]
mod task_order_tests;
mod task_probe;
mod task_snapshot;
#[cfg(test)]
mod task_tests;
mod threaded;
mod unsettled;

pub use background::{Background, Job, OnPanic, Pool, ThreadedBackground};
pub use chain::{Chain, ChainLink, Target};
#[cfg(debug_assertions)]
pub use changelog::Changelog;
pub use channel::{Channel, ChannelBounds, TARGET_BYTES, TARGET_ROWS};
pub use clock::{Clock, LOOK_EVERY, ManualClock, Now, STEP_MIN, SystemClock};
pub use edge_writer::EdgeWriter;
pub use element::Element;
pub use input_gate::{GateEvent, InputGate};
pub use mailbox::Mailbox;
pub use source_head::{HeadEvent, SourceHead, SourceTime};
pub use task::{Task, TaskPoll};
pub use task_environment::{Head, Opener, Reports, TaskEnvironment, TaskMetrics};
pub use task_probe::{Doing, TaskProbe};
pub(crate) use threaded::{Signal, panic_message};
pub use threaded::{TaskRunner, TaskSlot, ThreadedRunner};
