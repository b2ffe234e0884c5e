//! The demo: descriptions of this repository's own dependencies, from two embedded Kafka clusters
//! through the job in Rust and through the job file, and what came of it, printed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use thalweg::config::Environment as Variables;
use thalweg::engine::metrics::Registry;
use thalweg::job::{load, start};
use thalweg::operators::tensor::{DeviceChoice, Element};
use thalweg::prelude::*;

use super::job::{Places, packages_job};
use super::packages::packages;
use super::show::{Similar, show};
use super::site::Site;
use super::{TOPICS, job_files, write_topics};

/// How the job is written.
#[derive(Clone, Copy)]
enum Written {
    InRust,
    InYaml,
}

/// Runs the demo with the model of a directory. Returns whether both jobs wrote every package that
/// has a description once, with the same topics.
///
/// # Errors
/// When a part of it cannot be started, or a job fails.
pub fn run_demo(model: &Path) -> Result<bool> {
    let directory =
        tempfile::tempdir().map_err(|error| Error::external("no temporary directory").caused_by(error))?;
    let packages = packages()?;
    let with_text = packages.iter().filter(|package| package.text.is_some()).count();
    println!("{} packages in Cargo.lock, {with_text} with a description", packages.len());
    let encoder = SentenceEncoder::open(model, Element::F32)
        .map_err(|error| Error::user("cannot open the model").caused_by(error))?;
    let topics = directory.path().join("topics.safetensors");
    write_topics(&encoder, &topics)?;
    println!("{} topics embedded by {}", TOPICS.lines().count(), model.display());

    let mut found = Vec::new();
    for written in [Written::InRust, Written::InYaml] {
        // Clusters of its own, so that each reads the same and its results lie alone.
        let site = Site::start(directory.path(), &packages)?;
        let places = Places {
            topology: site.topology().to_path_buf(),
            prism: site.prism(),
            topics: topics.clone(),
            without_text: directory.path().join("without_text"),
            device: DeviceChoice::Auto,
        };
        let began = Instant::now();
        let metrics = match written {
            Written::InRust => run_in_rust(&places, &encoder, directory.path())?,
            Written::InYaml => run_in_yaml(&places, model, directory.path())?,
        };
        println!(
            "job {}: {} rows in {} batches of tensors, {:.1} s with start and last checkpoint",
            match written {
                Written::InRust => "in Rust",
                Written::InYaml => "in YAML",
            },
            metrics.total("tensor_rows_total"),
            metrics.total("tensor_batches_total"),
            began.elapsed().as_secs_f64()
        );
        found.push(site.results()?);
    }
    show(&found[0]);
    Ok(is_complete(&found, with_text))
}

fn is_complete(found: &[Vec<Similar>], with_text: usize) -> bool {
    let topics: Vec<BTreeMap<&str, &[i64]>> = found
        .iter()
        .map(|rows| rows.iter().map(|row| (row.id.as_str(), row.neighbours.as_slice())).collect())
        .collect();
    let once = found.iter().all(|rows| {
        let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        ids.len() == rows.len() && rows.len() == with_text
    });
    let same = topics.windows(2).all(|pair| pair[0] == pair[1]);
    let counts: Vec<String> = found.iter().map(|rows| rows.len().to_string()).collect();
    println!("\npackages out: {}, each once: {once}, with the same topics: {same}", counts.join(" and "));
    once && same
}

fn run_in_rust(places: &Places, encoder: &SentenceEncoder, directory: &Path) -> Result<Registry> {
    let env = Environment::new();
    packages_job(&env, places, encoder)?;
    let checkpoints = format!("file://{}", directory.join("checkpoints").display());
    let job = Job::new("packages-in-rust").parallelism(2).memory(1 << 30);
    let job = job.checkpoints(&checkpoints).checkpoint_every(SECOND).start(&env)?;
    ended(job)
}

fn run_in_yaml(places: &Places, model: &Path, directory: &Path) -> Result<Registry> {
    let variables = DemoVariables(BTreeMap::from([
        ("MODEL", model.display().to_string()),
        ("REFERENCES", places.topics.display().to_string()),
        ("TOPOLOGY", places.topology.display().to_string()),
        ("PRISM", places.prism.clone()),
        ("OUT", directory.display().to_string()),
    ]));
    let file = job_files().join("packages.yaml");
    let job = load(&file, &variables).map_err(|mistakes| Error::user(mistakes.to_string()))?;
    ended(start(job, Registry::default())?)
}

fn ended(job: RunningJob) -> Result<Registry> {
    let metrics = job.metrics().clone();
    match job.wait()?.outcome {
        Outcome::Completed => Ok(metrics),
        other => Err(Error::external(format!("the job ended with {other:?}"))),
    }
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
