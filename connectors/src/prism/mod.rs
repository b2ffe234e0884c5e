//! Prism: writes records to logical topics that several Kafka clusters hold, around the clusters
//! that are away; as a gRPC gateway, or embedded. And the sinks that write through it.
//!
//! What decides is pure: `route`, `breaker`. What a record meets on its way is in `outcome`.
//! The router knows nothing of gRPC; the sinks know the router only as one of two targets. The
//! behaviours are those of docs/requirements.md, P1 and on.

mod admission;
mod at_least_once;
mod breaker;
mod cluster;
mod committer;
mod config;
mod config_document;
mod exactly_once;
mod gateway;
mod outbox;
mod outcome;
mod request;
mod route;
mod router;
mod row_records;
mod segment;
mod service;
mod sink;
mod staging;
mod target;
mod uploads;

pub use breaker::BreakerConfig;
pub use config::{GatewayConfig, Limits, RouterConfig};
pub use config_document::parse_gateway_config;
pub use gateway::{PrismGateway, RunningGateway, run_gateway};
pub use router::Router;
pub use sink::{Delivery, PrismSink};
pub use target::PrismTarget;
