//! Whole jobs on the engine's own runtime: simulated from seeds, and on threads.

mod job;
mod simulated;
mod threaded;
