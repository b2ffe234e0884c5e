//! Process functions: a user's own logic over each key's rows, with state, timers and side
//! outputs. Over one keyed stream ([`KeyedProcess`]), over two ([`KeyedCoProcess`]), and over one
//! with a stream that every instance gets ([`KeyedBroadcastProcess`]).
//!
//! The rules: a function sees one key at a time and no other key's state; rows of one key come in
//! the order in which they arrived; timers fire in time order, each in a step that is bounded, and
//! before the watermark goes on. A function has no clock: processing time comes from its context.
//! Semantics are those of Flink's `KeyedProcessFunction`, `KeyedCoProcessFunction` and
//! `KeyedBroadcastProcessFunction`.

mod broadcast;
mod co;
mod context;
mod driver;
mod harness;
mod keyed;
pub(crate) mod keys;
mod stream;

pub use broadcast::{BroadcastContext, KeyedBroadcastProcess};
pub use co::KeyedCoProcess;
pub use context::{ProcessContext, ProcessOpen, TimeDomain, Timer};
pub use harness::{broadcast_process_harness, co_process_harness, process_harness};
pub use keyed::KeyedProcess;
pub use stream::{KeyedProcessExt, process, process_broadcast, process_two};
