//! The federated Kafka source and the plain sink against real brokers, by requirement.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "kafka/bounded.rs"]
mod bounded;
#[path = "kafka/client_suite.rs"]
mod client_suite;
#[path = "kafka/copies.rs"]
mod copies;
#[path = "kafka/decoding.rs"]
mod decoding;
#[path = "kafka/driver.rs"]
mod driver;
#[path = "kafka/failing.rs"]
mod failing;
#[path = "kafka/federated.rs"]
mod federated;
#[path = "kafka/jobs.rs"]
mod jobs;
#[path = "kafka/outage.rs"]
mod outage;
#[path = "kafka/recreated.rs"]
mod recreated;
#[path = "kafka/restarts.rs"]
mod restarts;
#[path = "kafka/simulated.rs"]
mod simulated;
#[path = "kafka/sink.rs"]
mod sink;
#[path = "sink_bench/mod.rs"]
mod sink_bench;
#[path = "kafka/starts.rs"]
mod starts;
#[path = "kafka/text_format.rs"]
mod text_format;
#[path = "kafka/tombstones.rs"]
mod tombstones;
#[path = "kafka/world.rs"]
mod world;
