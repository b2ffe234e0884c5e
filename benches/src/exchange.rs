//! `exchange_hash`: what it costs to send rows from one task to two by the hash of a `u64` key,
//! against the bare `take` per target on the same batches, hashes included.

use std::hint::black_box;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use thalweg_connectors::blackhole::BlackHole;
use thalweg_connectors::generator::{Generate, Generator, KeyDistribution};
use thalweg_engine::Result;
use thalweg_engine::graph::{Environment, Partitioner};
use thalweg_engine::state::KeyGroup;
use thalweg_engine::state::key_encoding::hash_keys;

use crate::catalogue::per_core_second;
use crate::job::{EVENTS, JobOptions, steady};
use crate::pump::pump;
use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;
use crate::usage::Meter;

const TARGETS: u32 = 2;
const MAX_PARALLELISM: u32 = 128;

fn source() -> Generator {
    let key = Generate::Key { cardinality: 1_000_000, distribution: KeyDistribution::Uniform };
    Generator::new([("key", key), ("value", Generate::Random)])
}

/// Runs one side.
///
/// # Errors
/// What fails it.
pub fn one(role: Role, settings: &Settings) -> Result<Sample> {
    match role {
        Role::Subject => {
            let environment = Environment::new();
            let keyed = environment.source(source()).uid(EVENTS).key_by(&["key"]);
            keyed
                .stream()
                .apply_dyn(Arc::new(BlackHole::new()), Some(Partitioner::Hash))
                .parallelism(TARGETS);
            steady(&environment, &JobOptions::default(), 0, settings.window)
        }
        Role::Baseline => {
            let (mut rows, meter) = (0, Meter::start(0));
            pump(&source(), |batch| {
                for share in split(batch.records())? {
                    rows += black_box(share).num_rows() as u64;
                }
                Ok(meter.elapsed() < settings.window)
            })?;
            Ok(meter.stop(rows))
        }
    }
}

fn split(records: &RecordBatch) -> Result<Vec<RecordBatch>> {
    let hashes = hash_keys(&[records.column(0).clone()], records.num_rows())?;
    let mut indices = vec![Vec::with_capacity(records.num_rows()); TARGETS as usize];
    for (row, &hash) in hashes.values().iter().enumerate() {
        let target = KeyGroup::of_hash(hash, MAX_PARALLELISM).subtask(TARGETS, MAX_PARALLELISM);
        indices[target as usize].push(row as u32);
    }
    indices.into_iter().map(|rows| Ok(take_record_batch(records, &UInt32Array::from(rows))?)).collect()
}

/// The report's rows.
pub fn rows(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    let is = "bare take per target";
    let row = |suffix: &str, unit, number: fn(&Sample) -> f64| Row {
        name: format!("{name}{suffix}"),
        value: number(subject),
        unit,
        baseline: is,
        baseline_value: number(baseline),
        aim: "",
    };
    vec![
        per_core_second(name, subject, baseline, is, ""),
        row("_rows_per_second", "rows/s", |sample| sample.get("rows_per_second")),
        row("_ns_per_row", "core-ns/row", |sample| 1e9 / sample.get("rows_per_core_second")),
    ]
}
