//! Texts that say nearly the same: embedded, compared with those seen lately of the same key, placed
//! among topics. In Rust here, in YAML in `tensor/`; `demo_tensor` runs both over two Kafka
//! clusters.

mod demo;
mod job;
mod packages;
mod show;
mod site;

pub use demo::run_demo;
pub use job::{Found, Notice, Package, Places, Search, notices, notices_job, packages_job, similar_job};

use std::path::{Path, PathBuf};

use thalweg::operators::tensor::embed_texts;
use thalweg::prelude::*;

/// The topic of Kafka that packages come from.
const INPUT: &str = "packages";
/// The topic that results go to.
const OUTPUT: &str = "similar";

/// The topics that texts are placed among, a line each.
pub const TOPICS: &str = include_str!("../../tensor/topics.txt");

/// The directory of the job files.
pub fn job_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tensor")
}

/// Writes a reference matrix of the topics; a topic's id is its line, from 0.
///
/// # Errors
/// When the file cannot be written.
pub fn write_topics(encoder: &SentenceEncoder, path: &Path) -> Result<()> {
    let topics: Vec<&str> = TOPICS.lines().collect();
    let written = embed_texts("references", encoder, &topics)?.write(path);
    written.map_err(|error| Error::external("cannot write the topics").caused_by(error))
}
