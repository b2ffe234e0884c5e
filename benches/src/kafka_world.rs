//! A real broker with a topic that is filled once, and read by every side of every benchmark.

use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tempfile::TempDir;
use thalweg_engine::{Error, Result};
use thalweg_testkit::KafkaCluster;

use crate::kafka_records::write_record;
use crate::latency;
use crate::sample::Role;

/// The topic with the bids.
pub const BIDS: &str = "bids";
/// Its partitions.
pub const PARTITIONS: i32 = 4;
/// Records in a row in one partition, as a producer's batches are.
const RUN: u64 = 500;

/// The broker.
pub struct KafkaWorld {
    cluster: KafkaCluster,
}

impl KafkaWorld {
    /// Starts a broker and fills the topic.
    ///
    /// # Errors
    /// An external error when the broker does not start or refuses a record.
    pub fn start(records: u64) -> Result<KafkaWorld> {
        let cluster = KafkaCluster::start("benches").map_err(kafka_failed)?;
        cluster.create_topic(BIDS, PARTITIONS).map_err(kafka_failed)?;
        for topic in [Role::Subject, Role::Baseline].into_iter().flat_map(latency::topics) {
            cluster.create_topic(&topic, PARTITIONS).map_err(kafka_failed)?;
        }
        println!("  filling {BIDS} with {records} records");
        fill(cluster.bootstrap(), records)?;
        Ok(KafkaWorld { cluster })
    }

    /// Where it listens.
    pub fn bootstrap(&self) -> &str {
        self.cluster.bootstrap()
    }
}

/// An external error of a client.
pub fn kafka_failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::external("Kafka").caused_by(error)
}

fn fill(bootstrap: &str, records: u64) -> Result<()> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("linger.ms", "20")
        .set("batch.size", "500000")
        .set("queue.buffering.max.kbytes", "131072")
        .create()
        .map_err(kafka_failed)?;
    let mut payload = String::new();
    for number in 0..records {
        write_record(number, &mut payload);
        let partition = (number / RUN % PARTITIONS as u64) as i32;
        let mut record = BaseRecord::<(), str>::to(BIDS).partition(partition).payload(&payload);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    producer.poll(Duration::from_millis(10));
                    record = back;
                }
                Err((error, _)) => return Err(kafka_failed(error)),
            }
        }
        if number % 10_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(Duration::from_secs(120)).map_err(kafka_failed)
}

/// A topology file of one cluster that holds `topics`; lives as long as the directory.
///
/// # Errors
/// An external error when it cannot be written.
pub fn topology(bootstrap: &str, topics: &[&str]) -> Result<(TempDir, PathBuf)> {
    let failed = |error: std::io::Error| Error::external("cannot write a topology").caused_by(error);
    let directory = tempfile::tempdir().map_err(failed)?;
    let path = directory.path().join("topology.yaml");
    let topics: String = topics.iter().map(|topic| format!("  {topic}: [bench]\n")).collect();
    let text = format!("version: 1\nclusters:\n  bench: {{ bootstrap: \"{bootstrap}\" }}\ntopics:\n{topics}");
    std::fs::write(&path, text).map_err(failed)?;
    Ok((directory, path))
}
