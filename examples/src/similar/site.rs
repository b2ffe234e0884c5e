//! Where the demo's jobs run: two embedded Kafka clusters, filled, and a gateway of Prism before them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use thalweg::connectors::deduplicate::drop_copies;
use thalweg::connectors::kafka::MetadataColumn;
use thalweg::connectors::prism::{GatewayConfig, PrismGateway, RunningGateway};
use thalweg::engine::metrics::Registry;
use thalweg::prelude::*;

use super::packages::Described;
use super::show::Similar;
use super::{INPUT, OUTPUT};

const CLUSTERS: [&str; 2] = ["east", "west"];
const PARTITIONS: i32 = 2;
const TIMEOUT: Duration = Duration::from_secs(30);

/// The clusters and the gateway. Stays on the thread that made it, as embedded clusters do.
pub struct Site {
    gateway: RunningGateway,
    topology: PathBuf,
    _clusters: Vec<MockCluster<'static, DefaultProducerContext>>,
}

fn kafka(what: &'static str) -> impl Fn(rdkafka::error::KafkaError) -> Error {
    move |error| Error::external(format!("{what} failed")).caused_by(error)
}

impl Site {
    /// Starts all, and deals the packages to the clusters. `directory` gets the topology file.
    ///
    /// # Errors
    /// When a part of it does not start, or a record is not taken.
    pub fn start(directory: &Path, packages: &[Described]) -> Result<Site> {
        let clusters = CLUSTERS.map(|_| cluster()).into_iter().collect::<Result<Vec<_>>>()?;
        for (index, cluster) in clusters.iter().enumerate() {
            let seconds = (index..).step_by(CLUSTERS.len());
            produce(cluster, packages.iter().skip(index).step_by(CLUSTERS.len()).zip(seconds))?;
        }
        let topology = directory.join("topology.yaml");
        std::fs::write(&topology, topology_text(&clusters))
            .map_err(|error| Error::external("cannot write the topology").caused_by(error))?;
        let metrics = Registry::default().group(Vec::new());
        let gateway = PrismGateway::start(GatewayConfig::new("127.0.0.1:0", &topology), &metrics)?;
        Ok(Site { gateway, topology, _clusters: clusters })
    }

    /// The topology file.
    pub fn topology(&self) -> &Path {
        &self.topology
    }

    /// The gateway's URL.
    pub fn prism(&self) -> String {
        self.gateway.endpoint()
    }

    /// Reads the results from both clusters, copies dropped.
    ///
    /// # Errors
    /// When they cannot be read to their end.
    pub fn results(&self) -> Result<Vec<Similar>> {
        let list = |item| DataType::List(Field::new("item", item, true).into());
        let schema = Schema::new(vec![
            Field::new("id", DataType::Utf8View, false),
            Field::new("text", DataType::Utf8View, false),
            Field::new("duplicate_of", DataType::Utf8View, true),
            Field::new("similarity", DataType::Float64, true),
            Field::new("neighbours", list(DataType::Int64), false),
            Field::new("scores", list(DataType::Float64), false),
        ]);
        let env = Environment::new();
        let source = KafkaSource::federated(OUTPUT, &self.topology).format(Json::new(&schema));
        let source = source.until(Until::Latest);
        let source = source.metadata([MetadataColumn::Header("thalweg-id".to_string())]);
        let collected = Collected::new();
        drop_copies(&env.source(source), "kafka_header_thalweg_id").sink(collected.exactly_once_sink());
        Job::new("read-back").parallelism(1).run(&env)?;
        let lines = collected.sorted_lines()?;
        let rows = lines.iter().map(|line| {
            serde_json::from_str(line)
                .map_err(|error| Error::internal(format!("not a result: {line}")).caused_by(error))
        });
        rows.collect()
    }
}

fn cluster() -> Result<MockCluster<'static, DefaultProducerContext>> {
    let cluster = MockCluster::new(1).map_err(kafka("starting an embedded cluster"))?;
    cluster.create_topic(INPUT, PARTITIONS, 1).map_err(kafka("making a topic"))?;
    cluster.create_topic(OUTPUT, 1, 1).map_err(kafka("making a topic"))?;
    Ok(cluster)
}

fn produce<'a>(
    cluster: &MockCluster<'static, DefaultProducerContext>,
    packages: impl Iterator<Item = (&'a Described, usize)>,
) -> Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .create()
        .map_err(kafka("making a producer"))?;
    for ((package, second), partition) in packages.zip((0..PARTITIONS).cycle()) {
        let payload = package.payload(second);
        let record = BaseRecord::<(), String>::to(INPUT).payload(&payload).partition(partition);
        producer.send(record).map_err(|(error, _)| kafka("producing")(error))?;
    }
    producer.flush(TIMEOUT).map_err(kafka("flushing"))
}

fn topology_text(clusters: &[MockCluster<'static, DefaultProducerContext>]) -> String {
    let mut text = "version: 1\nclusters:\n".to_string();
    for (name, cluster) in CLUSTERS.iter().zip(clusters) {
        text.push_str(&format!("  {name}: {{ bootstrap: \"{}\" }}\n", cluster.bootstrap_servers()));
    }
    let names = CLUSTERS.join(", ");
    text.push_str(&format!("topics:\n  {INPUT}: [{names}]\n  {OUTPUT}: [{names}]\n"));
    text
}
