//! `checkpoint_pause`: how long a task stands still at a barrier with 1 GiB of state in 8 million
//! keys, all of them updated uniformly, and a checkpoint every 10 s. What is counted is the task's
//! own gauge: from the barrier, when it is there on all inputs, until the task goes on. Also: how
//! many bytes the second snapshot of the full state writes against the first.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use thalweg_connectors::blackhole::BlackHole;
use thalweg_connectors::generator::{Generate, Generator, KeyDistribution};
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::Result;
use thalweg_engine::graph::Environment;
use thalweg_engine::state::key_by::KeyBy;
use thalweg_operators::aggregate::AggregateSpec;
use thalweg_operators::keyed_aggregate::KeyedAggregate;

use crate::job::{EVENTS, JobOptions, RunningJob};
use crate::results::Row;
use crate::sample::{Role, Sample, percentile};
use crate::settings::Settings;

const KEYS: u64 = 8_000_000;
/// Checkpoints of the full state that are looked at.
const CHECKPOINTS: i64 = 6;

fn source(key: Generate) -> Generator {
    let value = || Generate::Integer { min: -1_000_000_000, max: 1_000_000_000 };
    Generator::new([("key", key), ("a", value()), ("b", value()), ("c", value())])
}

/// A key of 8 bytes and fifteen words of 8 (a count has one, the others two): 128 bytes a key, 1 GiB
/// in 8 million.
fn aggregates() -> Vec<AggregateSpec> {
    let mut specs = vec![AggregateSpec::count().alias("count")];
    for column in ["a", "b"] {
        specs.push(AggregateSpec::min(column).alias(&format!("min_{column}")));
        specs.push(AggregateSpec::max(column).alias(&format!("max_{column}")));
        specs.push(AggregateSpec::sum(column).alias(&format!("sum_{column}")));
    }
    specs.push(AggregateSpec::min("c").alias("min_c"));
    specs
}

/// Runs the job. There is no baseline to run.
///
/// # Errors
/// What fails it.
pub fn one(_role: Role, _settings: &Settings) -> Result<Sample> {
    let environment = Environment::new();
    let each = environment.source(source(Generate::Sequence { start: 0 }).count(KEYS)).uid("events-each");
    let uniform = Generate::Key { cardinality: KEYS, distribution: KeyDistribution::Uniform };
    let updates = environment.source(source(uniform)).uid(EVENTS);
    each.union_apply(&[&updates], Arc::new(KeyBy::new(vec![0])))
        .apply(KeyedAggregate::new(&[0], aggregates()))
        .sink(BlackHole::new());
    let options = JobOptions { interval: Duration::from_secs(10), ..JobOptions::default() };
    let job = RunningJob::start(&environment, &options)?;
    let job = job.wait_until(|job| job.rows_out("events-each") >= KEYS)?;
    let mut watch = Watch::new(&job);
    let job = job.wait_until(|job| watch.look(job) >= CHECKPOINTS)?;
    let flush_waits = job.metrics().total("state_flush_waits_total");
    job.abandon()?;
    let pauses = watch.pauses_ms();
    Ok(Sample::default()
        .with("p50_ms", percentile(pauses.clone(), 50.0))
        .with("p99_ms", percentile(pauses.clone(), 99.0))
        .with("pauses", pauses.len() as f64)
        .with("first_bytes", watch.snapshot_bytes(0))
        .with("second_bytes", watch.snapshot_bytes(1))
        .with("last_bytes", watch.bytes.last().map_or(f64::NAN, |bytes| *bytes as f64))
        .with("flush_waits", flush_waits as f64))
}

/// What was seen of the job so far.
struct Watch {
    /// Each task's last pause, and those before it, in microseconds.
    pauses: BTreeMap<String, (i64, Vec<f64>)>,
    completed: i64,
    completed_first: i64,
    written: i64,
    /// What each checkpoint since the beginning has written.
    bytes: Vec<i64>,
}

impl Watch {
    fn new(job: &RunningJob) -> Watch {
        let completed = job.metrics().total("checkpoints_completed_total");
        let mut watch = Watch {
            pauses: BTreeMap::new(),
            completed,
            completed_first: completed,
            written: written_bytes(job),
            bytes: Vec::new(),
        };
        for (task, pause) in pauses(job) {
            watch.pauses.insert(task, (pause, Vec::new()));
        }
        watch
    }

    /// Takes in what changed; how many checkpoints have completed since the beginning.
    fn look(&mut self, job: &RunningJob) -> i64 {
        for (task, pause) in pauses(job) {
            let (last, seen) = self.pauses.entry(task).or_default();
            // Two pauses of exactly the same microseconds would count as one.
            if pause != *last {
                *last = pause;
                seen.push(pause as f64 / 1e3);
            }
        }
        let completed = job.metrics().total("checkpoints_completed_total");
        if completed > self.completed {
            let written = written_bytes(job);
            self.bytes.push(written - self.written);
            self.written = written;
            self.completed = completed;
        }
        completed - self.completed_first
    }

    /// The pauses of the task with the state: those of the others would flatter it.
    fn pauses_ms(&self) -> Vec<f64> {
        let longest = self.pauses.values().max_by(|(_, a), (_, b)| {
            let sum = |pauses: &[f64]| pauses.iter().sum::<f64>();
            sum(a).total_cmp(&sum(b))
        });
        longest.map(|(_, pauses)| pauses.clone()).unwrap_or_default()
    }

    /// What the checkpoint with this number has written. The one that was under way when the last
    /// key came is number 0 and does not hold all keys: it is left out.
    fn snapshot_bytes(&self, number: usize) -> f64 {
        self.bytes.get(number + 1).map_or(f64::NAN, |bytes| *bytes as f64)
    }
}

/// What all snapshots have written.
fn written_bytes(job: &RunningJob) -> i64 {
    job.metrics().total("checkpoint_written_bytes_total")
}

fn pauses(job: &RunningJob) -> Vec<(String, i64)> {
    let series = job.metrics().series("checkpoint_pause_us");
    let named = series.into_iter().map(|(labels, pause)| {
        let labels: Vec<_> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
        (labels.join(" "), pause)
    });
    named.collect()
}

/// The report's rows.
pub fn rows(name: &str, subject: &Sample, _baseline: &Sample) -> Vec<Row> {
    let pause = |suffix: &str, key: &str, aim| Row {
        name: format!("{name}{suffix}"),
        value: subject.get(key),
        unit: "ms",
        baseline: "the aim",
        baseline_value: 100.0,
        aim,
    };
    vec![
        pause("", "p99_ms", "<= 100"),
        pause("_p50", "p50_ms", ""),
        Row {
            name: format!("{name}_second_snapshot"),
            value: subject.get("second_bytes"),
            unit: "bytes",
            baseline: "the first snapshot",
            baseline_value: subject.get("first_bytes"),
            aim: "",
        },
    ]
}
