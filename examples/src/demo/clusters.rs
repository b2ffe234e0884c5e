//! The two clusters, embedded in this process or real ones, and what the demo does to them.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use thalweg::connectors::record_id::RECORD_ID_HEADER;
use thalweg::prelude::*;
use thalweg_testkit::KafkaCluster;

use super::{CLUSTERS, FLIGHTS, OUTPUTS, PARTITIONS};

const TIMEOUT: Duration = Duration::from_secs(30);

/// What a cluster is asked to do.
enum Command {
    Away,
    Back,
}

enum Cluster {
    Embedded { bootstrap: String, commands: Sender<(Command, Sender<()>)> },
    Real(Box<KafkaCluster>),
}

/// A record of an output.
pub struct OutputRecord {
    /// The id that it carries.
    pub id: Option<String>,
    /// Its payload, JSON.
    pub payload: Vec<u8>,
}

/// The clusters, by name.
pub struct Clusters(BTreeMap<&'static str, Cluster>);

fn kafka(what: &str) -> impl Fn(rdkafka::error::KafkaError) -> Error {
    move |error| Error::external(format!("{what} failed")).caused_by(error)
}

impl Clusters {
    /// Starts both in this process.
    ///
    /// # Errors
    /// When librdkafka cannot start them.
    pub fn embedded() -> Result<Clusters> {
        CLUSTERS.iter().map(|&name| Ok((name, embedded()?))).collect::<Result<_>>().map(Clusters)
    }

    /// Starts two real brokers.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn real() -> Result<Clusters> {
        let start = |&name: &&'static str| {
            let cluster = KafkaCluster::start(name)
                .map_err(|error| Error::external(format!("broker {name} did not start: {error}")))?;
            for (topic, partitions) in topics() {
                let created = cluster.create_topic(topic, partitions);
                created.map_err(|error| Error::external(format!("topic {topic} of {name}: {error}")))?;
            }
            Ok((name, Cluster::Real(Box::new(cluster))))
        };
        CLUSTERS.iter().map(start).collect::<Result<_>>().map(Clusters)
    }

    /// `host:port` of a cluster.
    pub fn bootstrap(&self, name: &str) -> &str {
        match &self.0[name] {
            Cluster::Embedded { bootstrap, .. } => bootstrap,
            Cluster::Real(cluster) => cluster.bootstrap(),
        }
    }

    /// Takes a cluster away: nobody reaches it. A real one is killed.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn take_away(&self, name: &str) -> Result<()> {
        self.command(name, Command::Away, KafkaCluster::kill)
    }

    /// Brings it back, with what it held.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn bring_back(&self, name: &str) -> Result<()> {
        self.command(name, Command::Back, KafkaCluster::restart)
    }

    fn command(
        &self,
        name: &str,
        command: Command,
        real: impl Fn(&KafkaCluster) -> thalweg_testkit::Result<()>,
    ) -> Result<()> {
        match &self.0[name] {
            Cluster::Real(cluster) => {
                real(cluster).map_err(|error| Error::external(format!("cluster {name}: {error}")))
            }
            Cluster::Embedded { commands, .. } => {
                let (done, wait) = channel();
                let gone = |_| Error::internal(format!("cluster {name} is gone"));
                commands.send((command, done)).map_err(|_| gone(()))?;
                wait.recv_timeout(TIMEOUT).map_err(|_| gone(()))
            }
        }
    }

    /// Writes payloads to the input of a cluster, dealt to its partitions, and waits until it
    /// holds them all.
    ///
    /// # Errors
    /// When one was not taken.
    pub fn produce(&self, name: &str, payloads: impl Iterator<Item = String>) -> Result<usize> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap(name)).set("linger.ms", "20");
        // Small batches, so that a consumer that fetches little ahead can.
        config.set("batch.num.messages", "100");
        let producer: ThreadedProducer<DefaultProducerContext> =
            config.create().map_err(kafka("making a producer"))?;
        let mut count = 0;
        for payload in payloads {
            let partition = (count % PARTITIONS as usize) as i32;
            let record = BaseRecord::<(), String>::to(FLIGHTS).payload(&payload).partition(partition);
            producer.send(record).map_err(|(error, _)| kafka("producing")(error))?;
            count += 1;
        }
        producer.flush(TIMEOUT).map_err(kafka("flushing"))?;
        Ok(count)
    }

    /// Reads all records that a topic holds in a cluster.
    ///
    /// # Errors
    /// When it cannot be read to its end.
    pub fn consume(&self, name: &str, topic: &str) -> Result<Vec<OutputRecord>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap(name)).set("group.id", "demo-verifier");
        config.set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().map_err(kafka("making a consumer"))?;
        let (low, high) =
            consumer.fetch_watermarks(topic, 0, TIMEOUT).map_err(kafka("asking for offsets"))?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, 0, Offset::Beginning).map_err(kafka("assigning"))?;
        consumer.assign(&assignment).map_err(kafka("assigning"))?;
        let mut records = Vec::new();
        let mut next = low;
        while next < high {
            let Some(message) = consumer.poll(TIMEOUT) else {
                return Err(Error::external(format!("{topic} of {name} stops at {next}, expected {high}")));
            };
            let message = message.map_err(kafka("reading"))?;
            next = message.offset() + 1;
            let header = message.headers().and_then(|headers| {
                headers.iter().find(|header| header.key == RECORD_ID_HEADER).and_then(|header| header.value)
            });
            records.push(OutputRecord {
                id: header.map(|id| String::from_utf8_lossy(id).into_owned()),
                payload: message.payload().unwrap_or_default().to_vec(),
            });
        }
        Ok(records)
    }
}

/// The topics of a cluster with their partitions. An output has one.
fn topics() -> impl Iterator<Item = (&'static str, i32)> {
    std::iter::once((FLIGHTS, PARTITIONS)).chain(OUTPUTS.iter().map(|&topic| (topic, 1)))
}

/// librdkafka's embedded cluster stays on the thread that made it.
fn embedded() -> Result<Cluster> {
    let (commands, todo) = channel();
    let (ready, started) = channel();
    std::thread::spawn(move || host(&ready, &todo));
    let bootstrap = started.recv().map_err(|_| Error::internal("an embedded cluster did not start"))??;
    Ok(Cluster::Embedded { bootstrap, commands })
}

fn host(ready: &Sender<Result<String>>, todo: &Receiver<(Command, Sender<()>)>) {
    let made = MockCluster::new(1).and_then(|cluster| {
        topics().try_for_each(|(topic, partitions)| cluster.create_topic(topic, partitions, 1))?;
        Ok(cluster)
    });
    let cluster: MockCluster<'_, _> = match made {
        Ok(cluster) => cluster,
        Err(error) => {
            let _ = ready.send(Err(kafka("starting an embedded cluster")(error)));
            return;
        }
    };
    let _ = ready.send(Ok(cluster.bootstrap_servers()));
    for (command, done) in todo {
        let result = match command {
            Command::Away => cluster.broker_down(-1),
            Command::Back => cluster.broker_up(-1),
        };
        // Without the answer the asker times out and says so.
        if result.is_ok() {
            let _ = done.send(());
        }
    }
}
