//! The jobs over Kafka, as they are, on two embedded clusters and a gateway: filled, read from both
//! clusters as one, written through Prism, read back; and what becomes of a record that cannot be
//! decoded.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use thalweg::config::Environment;
use thalweg::connectors::prism::{GatewayConfig, PrismGateway, RunningGateway};
use thalweg::connectors::sink::Sink;
use thalweg::engine::graph::NodeKind;
use thalweg::engine::metrics::Registry;
use thalweg::job::{load_text, start};
use thalweg::operators::tensor::thalweg_tensor::random_encoder::RandomEncoder;
use thalweg::prelude::{Collected, JobSummary, Outcome};
use thalweg_examples::similar::run_demo;

const CLUSTERS: [&str; 2] = ["east", "west"];
/// Rows that `fill.yaml` writes to each cluster.
const ROWS: i64 = 20_000;

struct Variables(BTreeMap<&'static str, String>);

impl Environment for Variables {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn file(&self, _path: &str) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

struct World {
    directory: tempfile::TempDir,
    clusters: Vec<MockCluster<'static, DefaultProducerContext>>,
    gateway: RunningGateway,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir().unwrap();
        let made = CLUSTERS.map(|_| {
            let cluster = MockCluster::new(1).unwrap();
            cluster.create_topic("completions", 3, 1).unwrap();
            cluster.create_topic("usage", 1, 1).unwrap();
            cluster
        });
        let clusters = Vec::from(made);
        let at = |index: usize| clusters[index].bootstrap_servers();
        // The shipped topology, but for where its clusters are.
        let text = std::fs::read_to_string(jobs().join("topology.yaml")).unwrap();
        let text = text.replace("localhost:9092", &at(0)).replace("localhost:9093", &at(1));
        let topology = directory.path().join("topology.yaml");
        std::fs::write(&topology, text).unwrap();
        let config = GatewayConfig::new("127.0.0.1:0", &topology);
        let gateway = PrismGateway::start(config, &Registry::default().group(Vec::new())).unwrap();
        World { directory, clusters, gateway }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs a job file after `change`, with one of the clusters as `BROKERS`; what it prints is
    /// collected.
    fn run(&self, job: &str, cluster: usize, change: impl Fn(String) -> String) -> (JobSummary, Vec<String>) {
        let text = change(std::fs::read_to_string(jobs().join(format!("{job}.yaml"))).unwrap());
        let variables = Variables(BTreeMap::from([
            ("OUT", self.path(&format!("out-{cluster}")).display().to_string()),
            ("BROKERS", self.clusters[cluster].bootstrap_servers()),
            ("TOPOLOGY", self.path("topology.yaml").display().to_string()),
            ("PRISM", self.gateway.endpoint()),
        ]));
        let loaded = load_text(&text, job, &jobs(), &variables);
        let mut loaded = loaded.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let printed = Collected::new();
        for node in &mut loaded.graph.nodes {
            if let NodeKind::Operator { factory, committer } = &mut node.kind
                && factory.name() == "print"
            {
                let parts = printed.sink().into_parts();
                (*factory, *committer) = (parts.factory, parts.committer);
            }
        }
        let summary = start(loaded, Registry::default()).unwrap().wait().unwrap();
        (summary, printed.sorted_lines().unwrap())
    }

    fn produce(&self, cluster: usize, payload: &str) {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", self.clusters[cluster].bootstrap_servers())
            .create()
            .unwrap();
        let record = BaseRecord::<(), str>::to("completions").payload(payload).partition(2);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(30)).unwrap();
    }
}

fn jobs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka")
}

fn number(row: &serde_json::Value, column: &str) -> i64 {
    row[column].as_i64().unwrap()
}

fn rows_of_files(directory: &Path) -> Vec<serde_json::Value> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    let text: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn two_clusters_are_read_as_one_written_through_prism_and_read_back() {
    let world = World::new();
    for cluster in 0..CLUSTERS.len() {
        let (summary, _) = world.run("fill", cluster, |text| text);
        assert_eq!(summary.outcome, Outcome::Completed);
    }
    world.produce(1, "nonsense");

    let (summary, _) = world.run("usage", 0, |text| text);
    assert_eq!(summary.outcome, Outcome::Completed);
    let [letter] = rows_of_files(&world.path("out-0/usage/undecoded")).try_into().unwrap();
    let text = |key: &str| letter[key].as_str().unwrap();
    assert_eq!((text("cluster"), text("topic"), number(&letter, "partition")), ("west", "completions", 2));
    assert!(!text("reason").is_empty() && number(&letter, "offset") > 0, "{letter}");

    let (summary, totals) = world.run("verify", 0, |text| text);
    assert_eq!(summary.outcome, Outcome::Completed);
    // Later totals of a user replace earlier ones; they only grow.
    let mut last: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for line in totals {
        let row: serde_json::Value = serde_json::from_str(&line).unwrap();
        let total = last.entry(row["user"].to_string()).or_default();
        *total = (*total).max((number(&row, "completions"), number(&row, "windows")));
    }
    assert_eq!(last.len(), 50);
    assert_eq!(last.values().map(|(completions, _)| completions).sum::<i64>(), ROWS * CLUSTERS.len() as i64);
}

#[test]
fn a_bad_record_fails_the_job_or_is_dropped_as_the_file_says() {
    let world = World::new();
    world.produce(0, r#"{"id": 1, "user": "ada", "tokens": 3, "at": "2024-01-31T00:00:00Z"}"#);
    world.produce(0, r#"{"id": 2, "user": "ada", "tokens": "many", "at": "2024-01-31T00:00:00Z"}"#);
    let without_dead_letters = |text: String, mode: &str| {
        let sinks = text.find("  undecoded:").unwrap();
        text[..sinks].replace("on_decode_error: dead_letter", mode)
    };
    let (summary, _) = world.run("usage", 0, |text| without_dead_letters(text, "on_decode_error: fail"));
    let Outcome::Failed { error, .. } = &summary.outcome else { panic!("{summary:?}") };
    for part in ["east", "completions", "tokens"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
    assert_eq!(summary.restarts, 0, "a retry cannot help");

    let (summary, _) = world.run("usage", 1, |text| without_dead_letters(text, "on_decode_error: drop"));
    assert_eq!(summary.outcome, Outcome::Completed);
    let (_, totals) = world.run("verify", 0, |text| text);
    assert_eq!(totals.len(), 1, "{totals:?}");
}

/// What `make demo-tensor` runs, with an encoder of random weights: the job in Rust and the job file
/// read packages from two clusters and write each once, with the same topics.
#[test]
fn packages_are_embedded_compared_and_placed_the_same_by_the_job_in_rust_and_the_job_file() {
    let model = tempfile::tempdir().unwrap();
    RandomEncoder::default().write(model.path()).unwrap();
    assert!(run_demo(model.path()).unwrap());
}
