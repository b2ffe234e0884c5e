//! Whole jobs on the engine's own runtime: simulated from seeds, and on threads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clock_steps;
mod ends;
mod fenced;
mod full_sink;
mod gathering;
mod job;
mod panics;
mod rescaled;
mod silences;
mod simulated;
mod threaded;
