//! The jobs under `examples/jobs`, as they are, but for their parallelism, their store, smaller
//! batches, and `print`, which says rows again after a restore: it collects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thalweg::config::Environment;
use thalweg::connectors::sink::Sink;
use thalweg::engine::graph::{NodeKind, Uid};
use thalweg::engine::metrics::Registry;
use thalweg::engine::record::Mode;
use thalweg::job::spec::SinkKind;
use thalweg::job::{LoadedJob, load_text, start};
use thalweg::prelude::RunningJob;

use crate::paced::Pace;
use crate::ways::{Golden, Site, three_ways};

fn jobs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs")
}

struct Out(PathBuf);

impl Environment for Out {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "OUT").then(|| self.0.display().to_string())
    }

    fn file(&self, _path: &str) -> std::io::Result<String> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

struct JobFile(String);

impl JobFile {
    fn load(&self, site: &Site, parallelism: u32) -> LoadedJob {
        let text = std::fs::read_to_string(jobs().join(format!("{}.yaml", self.0))).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("parallelism:"));
        let lines = lines.map(|line| match line.trim() {
            "kind: generator" => format!("{line}\n{}batch_rows: 100", line.replace("kind: generator", "")),
            _ => line.to_string(),
        });
        let text = format!("parallelism: {parallelism}\n{}", lines.collect::<Vec<_>>().join("\n"));
        let out = Out(site.directory().to_path_buf());
        let mut job =
            load_text(&text, &self.0, &jobs(), &out).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        site.prepare(&mut job);
        job
    }
}

impl Golden for JobFile {
    fn start(&self, site: &Site, parallelism: u32, pace: &Pace) -> RunningJob {
        let mut job = self.load(site, parallelism);
        let printed = job.spec.sinks.iter().filter(|sink| matches!(sink.spec.kind, SinkKind::Print { .. }));
        let printed: Vec<Uid> = printed.map(|sink| Uid::new(&sink.name).unwrap()).collect();
        for node in &mut job.graph.nodes {
            match &mut node.kind {
                NodeKind::Source { source, .. } => {
                    *source = std::sync::Arc::new(pace.hold(node.uid.as_str(), source.clone()));
                }
                NodeKind::Operator { factory, committer } if printed.contains(&node.uid) => {
                    let parts = site.collected(node.uid.as_str()).exactly_once_sink().into_parts();
                    node.identity = parts.factory.identity(&[]);
                    (*factory, *committer) = (parts.factory, parts.committer);
                }
                NodeKind::Operator { .. } => {}
            }
        }
        start(job, Registry::default()).unwrap()
    }

    fn outputs(&self, site: &Site) -> BTreeMap<String, Vec<String>> {
        let job = self.load(site, 1);
        let mut outputs = site.collected_lines();
        for sink in &job.spec.sinks {
            if let SinkKind::File { path, .. } = &sink.spec.kind {
                outputs.insert(sink.name.clone(), file_lines(path.value.reveal()));
            }
        }
        for (name, lines) in &mut outputs {
            if let Some(key) = replaced_by(&job, name) {
                *lines = last_of_each(&key, lines);
            }
            lines.sort();
        }
        outputs
    }
}

/// The columns by which a sink's later rows replace earlier ones.
fn replaced_by(job: &LoadedJob, sink: &str) -> Option<Vec<String>> {
    let nodes = &job.graph.nodes;
    let edge = job.graph.edges.iter().find(|edge| nodes[edge.to.0].uid.as_str() == sink)?;
    match &nodes[edge.from.0].outputs[usize::from(edge.output.0)].mode {
        Mode::Upsert(key) => Some(key.clone()),
        _ => None,
    }
}

fn last_of_each(key: &[String], lines: &[String]) -> Vec<String> {
    let mut last = BTreeMap::new();
    for line in lines {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let key: Vec<String> = key.iter().map(|column| row[column].to_string()).collect();
        last.insert(key, line.clone());
    }
    last.into_values().collect()
}

/// The rows of all finished files of a directory, without headers.
pub(crate) fn file_lines(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let rows = files.flat_map(|path| {
        let header = usize::from(path.extension().is_some_and(|extension| extension == "csv"));
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().skip(header).map(str::to_string).collect::<Vec<_>>()
    });
    rows.collect()
}

#[test]
fn every_job_file_gives_the_same_three_ways() {
    let entries = std::fs::read_dir(jobs()).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let mut names: Vec<_> =
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_string()).collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    for name in names {
        println!("{name}");
        three_ways(&JobFile(name));
    }
}
