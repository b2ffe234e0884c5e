//! The demo: descriptions of this repository's own dependencies, from two embedded Kafka clusters
//! through the job of `tensor/packages.yaml`, and what came of it, printed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use arrow::datatypes::{DataType, Field, Schema};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde::Deserialize;
use thalweg::config::Environment as Variables;
use thalweg::connectors::deduplicate::drop_copies;
use thalweg::connectors::kafka::MetadataColumn;
use thalweg::connectors::prism::{GatewayConfig, PrismGateway};
use thalweg::engine::metrics::Registry;
use thalweg::job::{load, start};
use thalweg::operators::tensor::Element;
use thalweg::prelude::*;

use super::{TOPICS, job_files, write_topics};

const CLUSTERS: [&str; 2] = ["east", "west"];
const INPUT: &str = "packages";
const OUTPUT: &str = "similar";
const TIMEOUT: Duration = Duration::from_secs(30);

/// A package of the lock file.
struct Package {
    id: String,
    category: String,
    text: Option<String>,
}

/// A row of the result.
#[derive(Deserialize)]
struct Similar {
    id: String,
    text: String,
    duplicate_of: Option<String>,
    similarity: Option<f64>,
    neighbours: Vec<i64>,
    scores: Vec<f64>,
}

/// Runs the demo with the model of a directory. Returns whether every package that has a description
/// came out once.
///
/// # Errors
/// When a part of it cannot be started, or the job fails.
pub fn run_demo(model: &Path) -> Result<bool> {
    let io = |what: &'static str| move |error: std::io::Error| Error::external(what).caused_by(error);
    let directory = tempfile::tempdir().map_err(io("no temporary directory"))?;
    let packages = packages()?;
    let with_text = packages.iter().filter(|package| package.text.is_some()).count();
    println!("{} packages in Cargo.lock, {with_text} with a description", packages.len());

    let opened = SentenceEncoder::open(model, Element::F32);
    let encoder = opened.map_err(|error| Error::user("cannot open the model").caused_by(error))?;
    let references = directory.path().join("topics.safetensors");
    write_topics(&encoder, &references)?;
    println!("{} topics embedded by {}", TOPICS.lines().count(), model.display());

    // The mock clusters stay on this thread.
    let clusters = CLUSTERS.map(|_| cluster()).into_iter().collect::<Result<Vec<_>>>()?;
    for (index, cluster) in clusters.iter().enumerate() {
        produce(cluster, packages.iter().skip(index).step_by(clusters.len()), index)?;
    }
    let topology = directory.path().join("topology.yaml");
    std::fs::write(&topology, topology_text(&clusters)).map_err(io("cannot write the topology"))?;
    let metrics = Registry::default().group(Vec::new());
    let gateway = PrismGateway::start(GatewayConfig::new("127.0.0.1:0", &topology), &metrics)?;

    let variables = DemoVariables(BTreeMap::from([
        ("MODEL", model.display().to_string()),
        ("REFERENCES", references.display().to_string()),
        ("TOPOLOGY", topology.display().to_string()),
        ("PRISM", gateway.endpoint()),
        ("OUT", directory.path().display().to_string()),
    ]));
    let file = job_files().join("packages.yaml");
    let job = load(&file, &variables).map_err(|mistakes| Error::user(mistakes.to_string()))?;
    let registry = Registry::default();
    let began = Instant::now();
    let outcome = start(job, registry.clone())?.wait()?.outcome;
    if outcome != Outcome::Completed {
        return Err(Error::external(format!("the job ended with {outcome:?}")));
    }
    let computed = registry.total("tensor_rows_total");
    println!(
        "{computed} rows in {} batches of tensors, {:.1} s with start and last checkpoint",
        registry.total("tensor_batches_total"),
        began.elapsed().as_secs_f64()
    );
    let found = read_back(&topology)?;
    gateway.stop()?;
    show(&found);
    let ids: BTreeSet<&str> = found.iter().map(|row| row.id.as_str()).collect();
    println!("\npackages out: {}, each once: {}", found.len(), ids.len() == found.len());
    Ok(found.len() == with_text && ids.len() == found.len())
}

struct DemoVariables(BTreeMap<&'static str, String>);

impl Variables for DemoVariables {
    fn variable(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned().or_else(|| std::env::var(name).ok())
    }

    fn file(&self, path: &str) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// What cargo knows of the packages that `Cargo.lock` names: the same on every machine.
fn packages() -> Result<Vec<Package>> {
    let manifest: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(&manifest)
        .output()
        .map_err(|error| Error::external("cargo does not run").caused_by(error))?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::external("cargo metadata says nothing that can be read").caused_by(error))?;
    let all = metadata["packages"].as_array().cloned().unwrap_or_default();
    let package = |package: &serde_json::Value| {
        let category = package["categories"][0].as_str().unwrap_or("none");
        Some(Package {
            id: format!("{} {}", package["name"].as_str()?, package["version"].as_str()?),
            category: category.split("::").next().unwrap_or(category).to_string(),
            text: package["description"].as_str().map(|text| text.trim().replace('\n', " ")),
        })
    };
    Ok(all.iter().filter_map(package).collect())
}

fn kafka(what: &'static str) -> impl Fn(rdkafka::error::KafkaError) -> Error {
    move |error| Error::external(format!("{what} failed")).caused_by(error)
}

fn cluster() -> Result<MockCluster<'static, DefaultProducerContext>> {
    let cluster = MockCluster::new(1).map_err(kafka("starting an embedded cluster"))?;
    cluster.create_topic(INPUT, 2, 1).map_err(kafka("making a topic"))?;
    cluster.create_topic(OUTPUT, 1, 1).map_err(kafka("making a topic"))?;
    Ok(cluster)
}

fn produce<'a>(
    cluster: &MockCluster<'static, DefaultProducerContext>,
    packages: impl Iterator<Item = &'a Package>,
    first: usize,
) -> Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .create()
        .map_err(kafka("making a producer"))?;
    for (count, package) in packages.enumerate() {
        // A second apart: all within the day that near-duplicates are looked for in.
        let second = count * CLUSTERS.len() + first;
        let at = format!("2025-03-01T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60);
        let row = serde_json::json!({
            "id": package.id, "category": package.category, "text": package.text, "at": at,
        });
        let payload = row.to_string();
        let record = BaseRecord::<(), String>::to(INPUT).payload(&payload).partition((count % 2) as i32);
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

/// Reads the results from both clusters, copies dropped.
fn read_back(topology: &Path) -> Result<Vec<Similar>> {
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
    let source = KafkaSource::federated(OUTPUT, topology).format(Json::new(&schema)).until(Until::Latest);
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

/// Clusters of near-duplicates, the largest first, and some packages with their nearest topics.
fn show(found: &[Similar]) {
    let texts: BTreeMap<&str, &str> = found.iter().map(|row| (row.id.as_str(), row.text.as_str())).collect();
    let mut groups: BTreeMap<&str, Vec<&Similar>> = BTreeMap::new();
    for row in found {
        if let Some(first) = &row.duplicate_of {
            groups.entry(first).or_default().push(row);
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(first, rows)| (std::cmp::Reverse(rows.len()), *first));
    println!(
        "\n{} packages are near-duplicates of {} others:",
        found.iter().filter(|row| row.duplicate_of.is_some()).count(),
        groups.len()
    );
    for (first, rows) in groups.iter().take(12) {
        println!("  {first}: {}", short(texts.get(first).unwrap_or(&"")));
        for row in rows.iter().take(4) {
            println!("    {:.3}  {}: {}", row.similarity.unwrap_or(0.0), row.id, short(&row.text));
        }
        if rows.len() > 4 {
            println!("    and {} more", rows.len() - 4);
        }
    }
    let topics: Vec<&str> = TOPICS.lines().collect();
    println!("\nnearest topics, the surest first:");
    let mut sure: Vec<&Similar> = found.iter().filter(|row| row.duplicate_of.is_none()).collect();
    sure.sort_by(|a, b| b.scores.first().unwrap_or(&0.0).total_cmp(a.scores.first().unwrap_or(&0.0)));
    let mut shown: BTreeSet<i64> = BTreeSet::new();
    for row in sure {
        let Some(&topic) = row.neighbours.first() else { continue };
        if shown.insert(topic) {
            let topic = usize::try_from(topic).ok().and_then(|topic| topics.get(topic)).unwrap_or(&"?");
            println!(
                "  {:.3}  {topic} <- {}: {}",
                row.scores.first().unwrap_or(&0.0),
                row.id,
                short(&row.text)
            );
        }
    }
}

fn short(text: &str) -> String {
    const SHOWN: usize = 70;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_string(),
    }
}
