//! The world around Thalweg, for its tests, demos and benchmarks: real Kafka brokers, a real Azurite, a network that can
//! be broken on purpose, child processes that can be killed.
//!
//! Everything here is a value that ends what it started when it is dropped, by pid. What a static holds (see
//! [`KafkaCluster::shared`]) ends within a second after the process does, however that ends. This crate knows nothing
//! of the engine; it drives the scripts in `dev/`, which need what `dev/install services` installs.
//!
//! ```no_run
//! # fn main() -> Result<(), thalweg_testkit::Error> {
//! use thalweg_testkit::{KafkaCluster, ProxyMode};
//!
//! let east = KafkaCluster::start_behind_proxy("east")?;
//! east.create_topic("flights", 4)?;
//! east.produce("flights", [("N14228", "{}")])?;
//! east.proxy()?.set(ProxyMode::BlackHole)?; // clients of `east.bootstrap()` now hear nothing
//! assert_eq!(east.consume("flights")?.len(), 1); // the testkit's own look goes past the proxy
//! # Ok(()) }
//! ```

mod azurite;
mod child_process;
mod error;
mod eventually;
mod fault_proxy;
mod http;
mod kafka_cluster;
mod kafka_record;
mod service;
mod shared;

pub use azurite::{AZURITE_ACCOUNT, AZURITE_KEY, Azurite};
pub use child_process::ChildProcess;
pub use error::{Error, Result};
pub use eventually::eventually;
pub use fault_proxy::{FaultProxy, ProxyMode};
pub use http::{HttpResponse, http_get, http_request};
pub use kafka_cluster::KafkaCluster;
pub use kafka_record::{NewRecord, Record};
