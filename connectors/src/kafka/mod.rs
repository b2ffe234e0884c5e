//! Kafka: the federated source, which reads one logical topic from many clusters at once, and a
//! plain at-least-once sink.
//!
//! What decides is pure and knows no client: [`topology`], `enumerator`, `bounds`. What the source
//! needs of Kafka is one trait (`client`): a look at a cluster may wait, on a thread of its own
//! (`probe`); reading never does (`reader`). Behind it stand `librdkafka`, where alone `unsafe` lives,
//! and clusters in memory for tests and the simulator (`simulated`). The behaviours are those of
//! docs/requirements.md, F1 and on.

mod bounds;
pub(crate) mod client;
mod client_settings;
mod cluster_metrics;
mod cluster_reader;
mod deliveries;
mod discovery;
mod enumerator;
mod fact;
mod gathering;
mod librdkafka;
mod metadata_columns;
mod probe;
mod reader;
mod record_keys;
mod settings;
mod simulated;
mod sink;
mod source;
mod split;
mod tombstones;
pub mod topology;
mod topology_document;
mod topology_file;

pub use bounds::{OnOffsetGone, OnTopicRecreated, Start, Until};
#[cfg(feature = "prism")]
pub(crate) use client_settings::{ClientSettings, RedactedLog};
pub(crate) use librdkafka::Librdkafka;
pub use metadata_columns::MetadataColumn;
pub use reader::OnOutage;
#[cfg(feature = "prism")]
pub(crate) use record_keys::RecordKeys;
pub(crate) use settings::ConsumerNeeds;
#[cfg(feature = "prism")]
pub(crate) use settings::producer_config;
pub use simulated::{Happening, SimulatedKafka, SimulatedRecord};
pub use sink::KafkaSink;
pub use source::{KafkaSource, KafkaSourceBuilder};
pub use tombstones::OnTombstone;
pub use topology::Topology;
pub use topology_document::parse_topology;
pub use topology_file::TopologyFile;
