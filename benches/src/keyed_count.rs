//! `keyed_count_*`: a count per `u64` key with exactly-once state, a checkpoint every 10 s and one
//! output row per changed key and batch, against a hash map in a loop that keeps nothing durable:
//! the same batches and the same hash, `hashbrown`.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::cast::AsArray;
use arrow::array::{ArrayRef, UInt64Array};
use arrow::datatypes::UInt64Type;
use hashbrown::HashTable;
use thalweg_connectors::blackhole::BlackHole;
use thalweg_connectors::generator::{Generate, Generator, KeyDistribution};
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::Result;
use thalweg_engine::graph::Environment;
use thalweg_engine::state::key_by::KeyBy;
use thalweg_engine::state::key_encoding::hash_keys;
use thalweg_engine::state::{MemoryPlan, MemoryRequest};
use thalweg_operators::keyed_count::keyed_count;

use crate::catalogue::per_core_second;
use crate::job::{EVENTS, JobOptions, RunningJob, steady};
use crate::pump::pump;
use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;
use crate::usage::{Meter, resident_max};

const LIMIT_BYTES: u64 = 256 << 20;
const MANY: u64 = 20_000_000;
const BARE: &str = "bare hashbrown loop, same hash";

fn source(keys: u64) -> Generator {
    Generator::new([("key", Generate::Key { cardinality: keys, distribution: KeyDistribution::Uniform })])
}

/// Every key once, in order.
fn every_key(keys: u64) -> Generator {
    Generator::new([("key", Generate::Sequence { start: 0 })]).count(keys)
}

/// For a table that grows; those here are made large enough.
fn hash_again(entry: &(u64, u64)) -> u64 {
    let key: ArrayRef = Arc::new(UInt64Array::from(vec![entry.0]));
    hash_keys(&[key], 1).map_or(0, |hashes| hashes.value(0))
}

/// A count per key in one hash table.
struct BareCount(HashTable<(u64, u64)>);

impl BareCount {
    fn add(&mut self, batch: &thalweg_engine::record::Batch) -> Result<()> {
        let column = batch.records().column(0);
        let hashes = hash_keys(std::slice::from_ref(column), batch.row_count())?;
        let keys = column.as_primitive::<UInt64Type>().values();
        for (&key, &hash) in keys.iter().zip(hashes.values()) {
            self.0.entry(hash, |entry| entry.0 == key, hash_again).or_insert((key, 0)).get_mut().1 += 1;
        }
        Ok(())
    }
}

fn bare(keys: u64, window: Duration) -> Result<Sample> {
    let mut counts = BareCount(HashTable::with_capacity(keys as usize));
    pump(&every_key(keys), |batch| counts.add(&batch).map(|()| true))?;
    let (mut rows, meter) = (0, Meter::start(0));
    pump(&source(keys), |batch| {
        rows += batch.row_count() as u64;
        counts.add(&batch)?;
        Ok(meter.elapsed() < window)
    })?;
    Ok(meter.stop(rows))
}

fn steady_count(keys: u64, role: Role, settings: &Settings) -> Result<Sample> {
    match role {
        Role::Baseline => bare(keys, settings.window),
        Role::Subject => {
            let environment = Environment::new();
            let keyed = environment.source(source(keys)).uid(EVENTS).key_by(&["key"]);
            keyed.apply(keyed_count(keyed.key(), "count")).sink(BlackHole::new());
            let options = JobOptions { interval: settings.window, ..JobOptions::default() };
            steady(&environment, &options, 5 * keys, settings.window)
        }
    }
}

/// Runs one side with 100,000 keys.
///
/// # Errors
/// What fails it.
pub fn one_100k(role: Role, settings: &Settings) -> Result<Sample> {
    steady_count(100_000, role, settings)
}

/// Runs one side with a million keys.
///
/// # Errors
/// What fails it.
pub fn one_1m(role: Role, settings: &Settings) -> Result<Sample> {
    steady_count(1_000_000, role, settings)
}

/// Runs one side with 20 million keys and a limit of 256 MiB: first every key once, beside uniform
/// updates; then updates alone.
///
/// # Errors
/// What fails it.
pub fn one_20m(role: Role, settings: &Settings) -> Result<Sample> {
    if role == Role::Baseline {
        return bare(MANY, settings.window);
    }
    let request = MemoryRequest {
        limit_bytes: LIMIT_BYTES,
        keyed_instances: 1,
        channels: 2,
        kafka_clients: 0,
        uploads: 4,
        operator_bytes: 0,
    };
    let plan = MemoryPlan::divide(request)?;
    let environment = Environment::new();
    let all = environment.source(every_key(MANY)).uid("events-each");
    let updates = environment.source(source(MANY)).uid(EVENTS);
    let operator = keyed_count(&[0], "count").memory_bytes(plan.cache_bytes_per_instance as usize);
    all.union_apply(&[&updates], Arc::new(KeyBy::new(vec![0]))).apply(operator).sink(BlackHole::new());
    let options = JobOptions {
        block_cache_bytes: Some(plan.block_cache_bytes as usize),
        write_buffer_bytes: Some(plan.write_buffer_bytes as usize),
        channel_bytes: Some(plan.channel_bytes as usize),
        ..JobOptions::default()
    };
    let filling = Meter::start(0);
    let job =
        RunningJob::start(&environment, &options)?.wait_until(|job| job.rows_out("events-each") >= MANY)?;
    let filled = filling.stop(job.events());
    // Two checkpoints' worth of updates over the full state.
    let meter = Meter::start(job.events());
    let window = 2 * settings.window;
    let job = job.wait_until(|_| meter.elapsed() >= window)?;
    let sample = meter.stop(job.events());
    let checkpoints = job.metrics().total("checkpoints_completed_total");
    let flush_waits = job.metrics().total("state_flush_waits_total");
    job.abandon()?;
    Ok(sample
        .with("fill_rows_per_second", filled.get("rows_per_second"))
        .with("checkpoints", checkpoints as f64)
        .with("flush_waits", flush_waits as f64)
        .with("resident_max", resident_max()))
}

/// The report's rows.
pub fn rows_100k(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    vec![per_core_second(name, subject, baseline, BARE, ">= 10 M")]
}

/// The report's rows.
pub fn rows_1m(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    vec![per_core_second(name, subject, baseline, BARE, "ratio >= 0.4")]
}

/// The report's rows.
pub fn rows_20m(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    let rate = |suffix: &str, key: &str| Row {
        name: format!("{name}{suffix}"),
        value: subject.get(key),
        unit: "rows/s",
        baseline: "bare hashbrown loop, no limit",
        baseline_value: baseline.get("rows_per_second"),
        aim: "",
    };
    vec![
        rate("", "rows_per_second"),
        rate("_fill", "fill_rows_per_second"),
        Row {
            name: format!("{name}_resident"),
            value: subject.get("resident_max"),
            unit: "bytes",
            baseline: "the limit",
            baseline_value: LIMIT_BYTES as f64,
            aim: "ratio <= 1.15",
        },
    ]
}
