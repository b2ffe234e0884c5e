//! The flights job where it may break: simulated from seeds, and killed on real Kafka; and beside
//! it smaller jobs, of the kinds of operators that it does not have.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damaged;
mod functions;
mod killed;
mod rule;
mod simulated;
mod straight;
