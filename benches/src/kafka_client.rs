//! A bare client: what the baselines read Kafka with. Its settings are those of the federated
//! source's own consumers.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use thalweg_engine::{Error, Result};

use crate::kafka_world::{PARTITIONS, kafka_failed};

/// A consumer without a record for so long has lost its broker.
const SILENCE: Duration = Duration::from_secs(30);

/// A consumer of all partitions of a topic, from this offset on.
///
/// # Errors
/// An external error of the client.
pub fn consumer(bootstrap: &str, topic: &str, from: Offset) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "thalweg-bench")
        .set("isolation.level", "read_committed")
        .set("queued.max.messages.kbytes", "32768")
        .set("queued.min.messages", "100000")
        .set("message.max.bytes", "1000000")
        .set("fetch.max.bytes", (32 << 20).to_string())
        .set("fetch.message.max.bytes", (1 << 20).to_string())
        .set("fetch.queue.backoff.ms", "5")
        .set("fetch.wait.max.ms", "100")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .create()
        .map_err(kafka_failed)?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, from).map_err(kafka_failed)?;
    }
    consumer.assign(&assignment).map_err(kafka_failed)?;
    Ok(consumer)
}

/// Polls every record of a topic, one after the other, to the end of each partition.
///
/// # Errors
/// An external error of the client, or when it falls silent.
pub fn poll_all(bootstrap: &str, topic: &str, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
    let consumer = consumer(bootstrap, topic, Offset::Beginning)?;
    let (mut rows, mut open) = (0, PARTITIONS);
    // When the last pause began, and how many rows there were: no clock is read for a record.
    let (mut heard, mut rows_heard) = (Instant::now(), 0);
    while open > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                each(message.payload().unwrap_or_default())?;
                rows += 1;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(kafka_failed(error)),
            None if rows > rows_heard => (heard, rows_heard) = (Instant::now(), rows),
            None if heard.elapsed() > SILENCE => return Err(Error::external("Kafka is silent")),
            None => {}
        }
    }
    Ok(rows)
}
