//! Kafka: the federated source, which reads one logical topic from many clusters at once, and a
//! plain at-least-once sink.
//!
//! What decides is pure and knows no client: [`topology`], `enumerator`, `bounds`. What looks at
//! the world sits on threads of its own (`probe`) or never waits (`reader`). `unsafe` lives in
//! `consumer` alone. The behaviours are those of REQUIREMENTS.md, F1 and on.

mod bounds;
mod cluster_metrics;
mod cluster_reader;
mod consumer;
mod deliveries;
mod discovery;
mod enumerator;
mod fact;
mod gathering;
mod metadata_columns;
mod probe;
mod reader;
mod record_keys;
mod settings;
mod sink;
mod source;
mod split;
pub mod topology;
mod topology_document;
mod topology_file;

pub use bounds::{OnOffsetGone, Start, Until};
pub use metadata_columns::MetadataColumn;
pub use reader::OnOutage;
#[cfg(feature = "prism")]
pub(crate) use record_keys::RecordKeys;
#[cfg(feature = "prism")]
pub(crate) use settings::producer_config;
pub use sink::KafkaSink;
pub use source::{KafkaSource, KafkaSourceBuilder};
pub use topology::Topology;
pub use topology_document::parse_topology;
pub use topology_file::TopologyFile;
