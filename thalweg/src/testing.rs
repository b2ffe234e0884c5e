//! What a test of one operator needs: `use thalweg::testing::*;`. Push rows and watermarks in, move
//! time by hand, look at what comes out, snapshot, restore at another parallelism.

pub use thalweg_engine::harness::{
    Emitted, HarnessBuilder, HarnessInput, HarnessSnapshot, OperatorHarness, PendingSnapshot,
};
pub use thalweg_operators::process::{broadcast_process_harness, co_process_harness, process_harness};
pub use thalweg_operators::typed::{FilterRows, FlatMapRows, MapRows};
