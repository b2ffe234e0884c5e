//! A harness for one operator, for tests: push rows and watermarks in, move processing time by
//! hand, look at what comes out, snapshot, restore at the same or another parallelism.
//!
//! It holds as many instances of the operator as its parallelism says and hands rows to them as a
//! job would: by key group on a keyed input, to all on a broadcast input, in turn otherwise. It
//! steps an operator until it is done and holds it to its contract: batches have the schema that
//! was announced, no output is emitted that was not announced, nothing comes after the end. State
//! lies in a map in memory, checkpoints in memory too; no thread, no clock.
//!
//! This module knows operators, records, state and checkpoints, and nothing of runtime and cluster.

mod build;
mod input;
mod instance;
mod operator_harness;
mod scratch;
mod snapshot;

pub use build::HarnessBuilder;
pub use input::HarnessInput;
pub use operator_harness::{Emitted, OperatorHarness};
pub use snapshot::{HarnessSnapshot, PendingSnapshot};
