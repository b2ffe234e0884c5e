//! The flights job where it may break: simulated from seeds, and killed on real Kafka.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod damaged;
mod killed;
mod rule;
mod simulated;
mod straight;
