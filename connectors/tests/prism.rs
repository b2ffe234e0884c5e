//! Prism against real brokers, by requirement.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "prism/backpressure.rs"]
mod backpressure;
#[path = "prism/bench.rs"]
mod bench;
#[path = "prism/exactly_once.rs"]
mod exactly_once;
#[path = "prism/failover.rs"]
mod failover;
#[path = "prism/gateway.rs"]
mod gateway;
#[path = "sink_bench/mod.rs"]
mod sink_bench;
#[path = "prism/staging.rs"]
mod staging;
#[path = "prism/world.rs"]
mod world;
