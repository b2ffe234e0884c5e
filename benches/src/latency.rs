//! `latency`: from the call that produces a record to the moment its result is read back: Kafka in,
//! a count per key, Kafka out, at 10,000 records a second over 100,000 keys, with a checkpoint every
//! 10 s. The baseline is a bare relay: a consumer and a producer with the same settings.
//!
//! Load and measurement run in the subject's process, on threads of their own; a record carries the
//! microsecond of its making through the job as an aggregate (`max(sent)` of its key).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::datatypes::{DataType, Field, Schema};
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset};
use thalweg_connectors::format::{Json, JsonEncoder};
use thalweg_connectors::kafka::topology::{Cluster, Setting};
use thalweg_connectors::kafka::{KafkaSink, KafkaSource, Start};
use thalweg_engine::graph::Environment;
use thalweg_engine::{Error, Result};
use thalweg_operators::aggregate::AggregateSpec;
use thalweg_operators::keyed_aggregate::KeyedAggregate;

use crate::job::{JobOptions, RunningJob};
use crate::kafka_client::consumer;
use crate::kafka_world::{kafka_failed, topology};
use crate::results::Row;
use crate::sample::{Role, Sample, percentile};
use crate::settings::Settings;

const PER_SECOND: u64 = 10_000;
const KEYS: u64 = 100_000;
/// How long producers wait for company, on both sides.
const LINGER_MS: &str = "1";
/// From the first record on; not measured.
const WARM_UP: Duration = Duration::from_secs(5);
/// Longest wait for a result.
const PATIENCE: Duration = Duration::from_secs(30);

/// The topics of one side: input and output.
pub fn topics(role: Role) -> [String; 2] {
    ["in", "out"].map(|direction| format!("latency-{direction}-{}", role.name()))
}

fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Runs one side.
///
/// # Errors
/// What fails it.
pub fn one(role: Role, settings: &Settings) -> Result<Sample> {
    let bootstrap = settings.bootstrap()?.to_string();
    let [input, output] = topics(role);
    let results = consumer(&bootstrap, &output, Offset::Beginning)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (job, relay, _directory) = match role {
        Role::Subject => {
            let (directory, topology) = topology(&bootstrap, &[&input])?;
            let environment = graph(&bootstrap, &input, &output, topology);
            let job = RunningJob::start(&environment, &JobOptions::default())?;
            (Some(job), None, Some(directory))
        }
        Role::Baseline => {
            let (bootstrap, input, output, stop) =
                (bootstrap.clone(), input.clone(), output.clone(), stop.clone());
            let relay = thread::spawn(move || relay(&bootstrap, &input, &output, &stop));
            (None, Some(relay), None)
        }
    };
    // Three checkpoints, of whatever length the settings give.
    let length = WARM_UP + 3 * settings.window;
    let sent = Arc::new(AtomicU64::new(0));
    let load = {
        let (bootstrap, input, sent) = (bootstrap.clone(), input.clone(), sent.clone());
        thread::spawn(move || produce(&bootstrap, &input, length, &sent))
    };
    let latencies = measure(&results, length, &load)?;
    load.join().map_err(|_| Error::internal("the load panicked"))??;
    stop.store(true, Ordering::Release);
    if let Some(relay) = relay {
        relay.join().map_err(|_| Error::internal("the relay panicked"))??;
    }
    let checkpoints = job.as_ref().map_or(0, |job| job.metrics().total("checkpoints_completed_total"));
    job.map_or(Ok(()), RunningJob::abandon)?;
    if latencies.is_empty() {
        return Err(Error::external("no results came"));
    }
    Ok(Sample::default()
        .with("results", latencies.len() as f64)
        .with("sent", sent.load(Ordering::Relaxed) as f64)
        .with("checkpoints", checkpoints as f64)
        .with("p50_ms", percentile(latencies.clone(), 50.0))
        .with("p99_ms", percentile(latencies.clone(), 99.0))
        .with("max_ms", percentile(latencies, 100.0)))
}

fn graph(bootstrap: &str, input: &str, output: &str, topology: std::path::PathBuf) -> Environment {
    let fields = [("key", DataType::UInt64), ("sent", DataType::Int64)];
    let schema = Schema::new(fields.map(|(name, kind)| Field::new(name, kind, false)).to_vec());
    let environment = Environment::new();
    let source = KafkaSource::federated(input, topology).format(Json::new(&schema)).start(Start::Earliest);
    let keyed = environment.source(source).key_by(&["key"]);
    let aggregates = [AggregateSpec::count().alias("count"), AggregateSpec::max("sent").alias("sent")];
    let cluster = Cluster::at(bootstrap).with("linger.ms", Setting::given(LINGER_MS.to_string()));
    let sink = KafkaSink::new("bench", cluster, output, || Ok(Box::new(JsonEncoder::new())));
    keyed.apply(KeyedAggregate::new(keyed.key(), aggregates)).apply(sink);
    environment
}

fn producer(bootstrap: &str) -> Result<ThreadedProducer<DefaultProducerContext>> {
    let made = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("linger.ms", LINGER_MS)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .create();
    made.map_err(kafka_failed)
}

/// Sends records at the rate, a handful each millisecond.
fn produce(bootstrap: &str, topic: &str, length: Duration, sent: &AtomicU64) -> Result<()> {
    let producer = producer(bootstrap)?;
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < length {
        let due = (started.elapsed().as_micros() as u64) * PER_SECOND / 1_000_000;
        while number < due {
            let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
            let payload = format!("{{\"key\":{key},\"sent\":{}}}", now_micros());
            let record = BaseRecord::<(), str>::to(topic).payload(&payload);
            producer.send(record).map_err(|(error, _)| kafka_failed(error))?;
            number += 1;
        }
        sent.store(number, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// What the job does, without an engine and without state: a record in, a record out.
fn relay(bootstrap: &str, input: &str, output: &str, stop: &AtomicBool) -> Result<()> {
    let (source, sink) = (consumer(bootstrap, input, Offset::Beginning)?, producer(bootstrap)?);
    while !stop.load(Ordering::Acquire) {
        if let Some(Ok(message)) = source.poll(Duration::from_millis(100)) {
            let record = BaseRecord::<(), [u8]>::to(output).payload(message.payload().unwrap_or_default());
            sink.send(record).map_err(|(error, _)| kafka_failed(error))?;
        }
    }
    Ok(())
}

/// Reads results until the load is done; the milliseconds that each took, without the warm-up's.
fn measure(
    results: &BaseConsumer,
    length: Duration,
    load: &thread::JoinHandle<Result<()>>,
) -> Result<Vec<f64>> {
    let warm_at = now_micros() + WARM_UP.as_micros() as u64;
    let patience = Instant::now() + length + PATIENCE;
    let mut latencies = Vec::new();
    loop {
        match results.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let now = now_micros();
                let value: serde_json::Value = serde_json::from_slice(message.payload().unwrap_or_default())
                    .map_err(|error| Error::external("a result is no JSON").caused_by(error))?;
                let sent = value["sent"].as_u64().unwrap_or_default();
                if sent >= warm_at {
                    latencies.push(now.saturating_sub(sent) as f64 / 1e3);
                }
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(kafka_failed(error)),
            None if load.is_finished() || Instant::now() > patience => return Ok(latencies),
            None => {}
        }
    }
}

/// The report's rows.
pub fn rows(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    let row = |suffix: &str, key: &str, aim| Row {
        name: format!("{name}{suffix}"),
        value: subject.get(key),
        unit: "ms",
        baseline: "bare relay, consumer to producer",
        baseline_value: baseline.get(key),
        aim,
    };
    vec![row("", "p99_ms", "<= 20"), row("_p50", "p50_ms", ""), row("_max", "max_ms", "")]
}
