//! `kafka_tumble`: bids from Kafka, a count per bidder in tumbling event-time windows of ten
//! seconds, RocksDB, a checkpoint every 10 s, against reading the same records into a blackhole.

use thalweg_connectors::blackhole::BlackHole;
use thalweg_connectors::format::Json;
use thalweg_connectors::kafka::{KafkaSource, Until};
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::Result;
use thalweg_engine::graph::Environment;
use thalweg_engine::time::{SECOND, WatermarkStrategy};
use thalweg_operators::aggregate::AggregateSpec;
use thalweg_operators::window::{TumblingWindow, WindowExt};

use crate::catalogue::per_core_second;
use crate::job::{EVENTS, JobOptions, whole};
use crate::kafka_read::read_json;
use crate::kafka_records::schema;
use crate::kafka_world::{BIDS, topology};
use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;

/// Runs one side.
///
/// # Errors
/// What fails it.
pub fn one(role: Role, settings: &Settings) -> Result<Sample> {
    if role == Role::Baseline {
        return read_json(settings);
    }
    let (_directory, topology) = topology(settings.bootstrap()?, &[BIDS])?;
    let environment = Environment::new();
    let source = KafkaSource::federated(BIDS, topology).format(Json::new(&schema())).until(Until::Latest);
    let windows = environment
        .source(source)
        .uid(EVENTS)
        .watermarks("time", WatermarkStrategy::bounded_out_of_order(SECOND))
        .key_by(&["bidder"])
        .window(TumblingWindow::seconds(10))
        .aggregate([AggregateSpec::count().alias("bids")]);
    let hole = BlackHole::new();
    windows.sink(hole.clone());
    let sample = whole(&environment, &JobOptions::default(), settings.records)?;
    Ok(sample.with("windows", hole.rows() as f64))
}

/// The report's rows.
pub fn rows(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    vec![per_core_second(name, subject, baseline, "kafka_read_json", "ratio >= 0.8")]
}
