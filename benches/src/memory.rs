//! The most memory that a job is ever seen with beside what it was given: long texts through a hash
//! exchange into a sink that stands still, in keys and in values of state, into files, out of many
//! small files. `thalweg/tests/memory.rs` holds smaller forms of the same jobs to the bound.

use std::path::Path;
use std::time::{Duration, Instant};

use thalweg::config::ProcessEnvironment;
use thalweg::job::{load_text, start};
use thalweg::prelude::RunningJob;
use thalweg_engine::cluster::Outcome;
use thalweg_engine::metrics::Registry;
use thalweg_engine::{Error, Result};

use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;
use crate::usage::resident_max;

/// What each job is given.
const LIMIT_BYTES: f64 = 256.0 * 1024.0 * 1024.0;
/// A job whose source has emitted nothing for so long stands still.
const STILL: Duration = Duration::from_secs(5);
const SMALL_FILES: usize = 10_000;

/// Rows with a text of four KiB for a million keys, or keyed by the text.
const STATE: &str = include_str!("../../thalweg/tests/memory/state.yaml");

/// Long texts through a hash exchange.
const EXCHANGED: &str = include_str!("../../thalweg/tests/memory/exchanged.yaml");

/// Files of one row.
const FILES: &str = include_str!("../../thalweg/tests/memory/small_files.yaml");

/// A million values of 4 KiB.
pub fn one_values(_: Role, _: &Settings) -> Result<Sample> {
    to_the_end(
        &STATE.replace("ROWS", "2_000_000").replace("KEY", "id").replace("AGGREGATE", "max(text)"),
        |_| Ok(()),
    )
}

/// Two million keys of 4 KiB.
pub fn one_keys(_: Role, _: &Settings) -> Result<Sample> {
    to_the_end(
        &STATE.replace("ROWS", "2_000_000").replace("KEY", "text").replace("AGGREGATE", "count()"),
        |_| Ok(()),
    )
}

/// Before a Kafka sink whose broker is down.
pub fn one_kafka_away(_: Role, _: &Settings) -> Result<Sample> {
    let sink = "kind: kafka, bootstrap_servers: '127.0.0.1:1', topic: t, format: json, key: key";
    until_still(&EXCHANGED.replace("ROWS", "1_000_000").replace("SINK", sink))
}

/// Before a Prism gateway that is down.
pub fn one_prism_away(_: Role, _: &Settings) -> Result<Sample> {
    let sink = "kind: prism, endpoint: 'http://127.0.0.1:1', topic: t, format: json, key: key";
    until_still(&EXCHANGED.replace("ROWS", "1_000_000").replace("SINK", sink))
}

/// Into Parquet files.
pub fn one_parquet(_: Role, _: &Settings) -> Result<Sample> {
    to_the_end(
        &EXCHANGED.replace("ROWS", "1_000_000").replace("SINK", "kind: file, path: out, format: parquet"),
        |_| Ok(()),
    )
}

/// Out of ten thousand files of one row.
pub fn one_small_files(_: Role, _: &Settings) -> Result<Sample> {
    to_the_end(FILES, |directory| {
        let text = "x".repeat(4_000);
        let written = std::fs::create_dir(directory.join("in")).and_then(|()| {
            (0..SMALL_FILES).try_for_each(|n| {
                let row = format!("{{\"n\":{n},\"text\":\"{text}\"}}\n");
                std::fs::write(directory.join(format!("in/{n}.jsonl")), row)
            })
        });
        written.map_err(|error| Error::external("cannot write the files to read").caused_by(error))
    })
}

fn begin(job: &str, directory: &Path) -> Result<RunningJob> {
    let loaded = load_text(job, "job.yaml", directory, &ProcessEnvironment)
        .map_err(|mistakes| Error::internal(mistakes.to_string()))?;
    start(loaded, Registry::default())
}

fn temporary() -> Result<tempfile::TempDir> {
    tempfile::tempdir().map_err(|error| Error::external("cannot make a directory").caused_by(error))
}

fn to_the_end(job: &str, prepare: impl FnOnce(&Path) -> Result<()>) -> Result<Sample> {
    let directory = temporary()?;
    prepare(directory.path())?;
    let summary = begin(job, directory.path())?.wait()?;
    match summary.outcome {
        Outcome::Completed => Ok(sample()),
        other => Err(Error::external(format!("the job came to {other:?}"))),
    }
}

fn until_still(job: &str) -> Result<Sample> {
    let directory = temporary()?;
    let job = begin(job, directory.path())?;
    let (mut rows, mut since) = (0, Instant::now());
    while since.elapsed() < STILL || rows == 0 {
        if job.is_over() {
            return Err(Error::external(format!("the job came to {:?}", job.wait()?.outcome)));
        }
        let now = job.metrics().total("rows_out_total");
        if now != rows {
            (rows, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let sample = sample();
    job.abandon();
    job.wait()?;
    Ok(sample)
}

fn sample() -> Sample {
    Sample::default().with("resident_max", resident_max())
}

/// The report's row.
pub fn rows(name: &str, subject: &Sample, _baseline: &Sample) -> Vec<Row> {
    vec![Row {
        name: name.to_string(),
        value: subject.get("resident_max"),
        unit: "bytes resident at most",
        baseline: "memory: 256MiB",
        baseline_value: LIMIT_BYTES,
        aim: "<= 1.15",
    }]
}
