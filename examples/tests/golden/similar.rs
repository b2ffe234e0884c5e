//! Near-duplicates and nearest topics of notices, in Rust and in YAML, with a small encoder of random
//! weights: each three ways, and both the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thalweg::config::Environment as Variables;
use thalweg::engine::graph::NodeKind;
use thalweg::engine::metrics::Registry;
use thalweg::job::{LoadedJob, load_text, start};
use thalweg::operators::tensor::thalweg_tensor::random_encoder::RandomEncoder;
use thalweg::operators::tensor::{Element, ReferenceMatrix};
use thalweg::prelude::*;
use thalweg_examples::similar::{TOPICS, job_files, notices, notices_job, write_topics};

use crate::files::file_lines;
use crate::paced::Pace;
use crate::ways::{Golden, Site, three_ways};

/// To an encoder of random weights all texts are much alike; a byte an element costs 2e-5.
const THRESHOLD: f32 = 0.9998;
/// How often the shipped notices are said again: enough for checkpoints in the middle of reading.
const TIMES: i64 = 75;
/// Between two notices, in milliseconds.
const STEP: i64 = 600_000;

/// A model, the topics that it embedded, and notices, as files.
struct Model(tempfile::TempDir);

impl Model {
    fn new() -> Model {
        let directory = tempfile::tempdir().unwrap();
        RandomEncoder { hidden: 64, ..RandomEncoder::default() }.write(directory.path()).unwrap();
        let model = Model(directory);
        write_topics(&model.encoder(), &model.topics()).unwrap();
        std::fs::write(model.notices(), many_notices()).unwrap();
        model
    }

    fn encoder(&self) -> SentenceEncoder {
        SentenceEncoder::open(self.0.path(), Element::F32).unwrap()
    }

    fn notices(&self) -> PathBuf {
        self.0.path().join("notices.jsonl")
    }

    fn topics(&self) -> PathBuf {
        self.0.path().join("topics.safetensors")
    }
}

/// The shipped notices again and again, one behind the other.
fn many_notices() -> String {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/notices.jsonl");
    let shipped = std::fs::read_to_string(shipped).unwrap();
    let mut rows: Vec<serde_json::Value> =
        shipped.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut text = String::new();
    for time in 0..TIMES {
        let count = rows.len() as i64;
        for (index, row) in rows.iter_mut().enumerate() {
            let id = time * count + index as i64;
            row["id"] = id.into();
            row["at"] = (1_740_787_200_000 + id * STEP).into();
            text.push_str(&format!("{row}\n"));
        }
    }
    text
}

struct InRust<'a>(&'a Model);

impl Golden for InRust<'_> {
    fn start(&self, site: &Site, parallelism: u32, pace: &Pace) -> RunningJob {
        let env = Environment::new();
        let source = env
            .source_dyn(Arc::new(pace.hold("notices", Arc::new(notices(&self.0.notices())))))
            .uid("notices");
        let topics = ReferenceMatrix::open("references", self.0.topics()).unwrap();
        let shown = notices_job(source, &self.0.encoder(), topics.into(), THRESHOLD).unwrap();
        shown.sink(site.collected("out").exactly_once_sink()).uid("out");
        site.job("notices", parallelism).start(&env).unwrap()
    }
}

struct InYaml<'a>(&'a Model);

struct Given<'a>(&'a Model, PathBuf);

impl Variables for Given<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "MODEL" => Some(self.0.0.path().display().to_string()),
            "REFERENCES" => Some(self.0.topics().display().to_string()),
            "OUT" => Some(self.1.display().to_string()),
            _ => None,
        }
    }

    fn file(&self, _path: &str) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

impl InYaml<'_> {
    fn load(&self, site: &Site, parallelism: u32) -> LoadedJob {
        let text = std::fs::read_to_string(job_files().join("notices.yaml")).unwrap();
        let text = text.replace("threshold: 0.95", &format!("threshold: {THRESHOLD}"));
        let notices = self.0.notices().display().to_string();
        let text = format!("parallelism: {parallelism}\n{}", text.replace("../data/notices.jsonl", &notices));
        let given = Given(self.0, site.directory().to_path_buf());
        let loaded = load_text(&text, "notices", &job_files(), &given);
        let mut job = loaded.unwrap_or_else(|mistakes| panic!("{mistakes}"));
        site.prepare(&mut job);
        job
    }
}

impl Golden for InYaml<'_> {
    fn start(&self, site: &Site, parallelism: u32, pace: &Pace) -> RunningJob {
        let mut job = self.load(site, parallelism);
        for node in &mut job.graph.nodes {
            if let NodeKind::Source { source, .. } = &mut node.kind {
                *source = Arc::new(pace.hold(node.uid.as_str(), source.clone()));
            }
        }
        start(job, Registry::default()).unwrap()
    }

    fn outputs(&self, site: &Site) -> BTreeMap<String, Vec<String>> {
        let mut lines = file_lines(&site.directory().join("notices/out"));
        lines.sort();
        BTreeMap::from([("out".to_string(), lines)])
    }
}

#[test]
fn notices_are_compared_and_placed_the_same_three_ways_in_rust_and_in_yaml() {
    let model = Model::new();
    let in_rust = three_ways(&InRust(&model));
    let in_yaml = three_ways(&InYaml(&model));
    assert_eq!(in_rust["out"], in_yaml["out"]);
    let rows: Vec<serde_json::Value> =
        in_rust["out"].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 420 * TIMES as usize);
    let texts: BTreeMap<i64, &str> =
        rows.iter().map(|row| (row["id"].as_i64().unwrap(), row["text"].as_str().unwrap())).collect();
    let duplicates: Vec<_> = rows.iter().filter(|row| !row["duplicate_of"].is_null()).collect();
    let share = duplicates.len() as f64 / rows.len() as f64;
    assert!((0.1..0.999).contains(&share), "a share of {share} duplicates proves nothing");
    // Weights are random, so near may mean anything; but it is always an earlier one.
    for row in &duplicates {
        let first = row["duplicate_of"].as_i64().unwrap();
        assert!(texts.contains_key(&first) && first < row["id"].as_i64().unwrap(), "{row}");
    }
    for row in &rows {
        let neighbour = row["neighbours"][0].as_i64().unwrap();
        assert!((0..TOPICS.lines().count() as i64).contains(&neighbour), "{row}");
    }
}
