//! Tensor transforms in whole jobs, simulated: seeded order, crashes, storage faults, restores at
//! other parallelisms, and a reference file that is replaced on the way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod job;
mod simulated;
mod tap;
mod versions;
