//! What the federated source needs of Kafka, held to librdkafka on a real broker: the same cases as
//! for the clusters in memory that the simulator reads.

use std::time::Duration;

use thalweg_connectors::conformance::kafka_client::{ClusterUnderTest, check_librdkafka};
use thalweg_connectors::kafka::topology::{Cluster, Setting};
use thalweg_connectors::kafka::{Happening, SimulatedRecord};
use thalweg_engine::{Error, Result};
use thalweg_testkit::{KafkaCluster, NewRecord, ProxyMode};

struct RealCluster(KafkaCluster);

fn written(partition: i32, record: SimulatedRecord) -> NewRecord {
    let SimulatedRecord { key, value, timestamp_ms, headers } = record;
    let record = match (key, value) {
        (Some(key), Some(value)) => NewRecord::from((key, value)),
        (Some(key), None) => NewRecord::tombstone(key),
        (None, value) => NewRecord::from(value.unwrap_or_default()),
    };
    let record = record.partition(partition).timestamp_ms(timestamp_ms);
    headers.into_iter().fold(record, |record, (name, value)| record.header(name, value))
}

impl ClusterUnderTest for RealCluster {
    fn cluster(&self) -> Cluster {
        Cluster::at(self.0.bootstrap()).with("broker.address.family", Setting::given("v4"))
    }

    fn happens(&self, happening: Happening) -> Result<()> {
        let cluster = &self.0;
        let happened = match happening {
            Happening::Goes => cluster.proxy().and_then(|proxy| proxy.set(ProxyMode::Refuse)),
            Happening::Returns => cluster.proxy().and_then(|proxy| proxy.set(ProxyMode::Pass)),
            Happening::TopicMade { topic, partitions } => cluster.create_topic(&topic, partitions),
            Happening::TopicDeleted { topic } => cluster.delete_topic(&topic),
            Happening::PartitionsAdded { topic, total } => cluster.add_partitions(&topic, total),
            Happening::Written { topic, partition, records } => {
                cluster.produce(&topic, records.into_iter().map(|record| written(partition, record)))
            }
            Happening::Deleted { topic, partition, before } => {
                cluster.delete_records(&topic, partition, before)
            }
        };
        happened.map_err(|error| Error::external(error.to_string()))
    }

    fn moment(&self) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn librdkafka_keeps_what_clusters_in_memory_keep() {
    let cluster = RealCluster(KafkaCluster::start_behind_proxy("client-suite").unwrap());
    check_librdkafka(&cluster).unwrap();
}
