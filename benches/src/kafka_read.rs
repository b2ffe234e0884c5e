//! `kafka_read_raw` and `kafka_read_json`: the federated reader on a real broker, into a blackhole,
//! against a loop that polls a bare consumer record by record: payloads copied out for raw; decoded
//! by `arrow-json`, record by record, for JSON.

use std::hint::black_box;
use std::sync::Arc;

use arrow::json::ReaderBuilder;
use thalweg_connectors::blackhole::BlackHole;
use thalweg_connectors::format::{Json, Raw};
use thalweg_connectors::kafka::{KafkaSource, KafkaSourceBuilder, Until};
use thalweg_connectors::sink::StreamSink;
use thalweg_engine::Result;
use thalweg_engine::graph::Environment;

use crate::catalogue::per_core_second;
use crate::job::{EVENTS, JobOptions, whole};
use crate::kafka_client::poll_all;
use crate::kafka_records::schema;
use crate::kafka_world::{BIDS, topology};
use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;
use crate::usage::Meter;

/// Rows of a batch that the JSON baseline decodes into.
const BATCH_ROWS: usize = 8_192;

fn read(settings: &Settings, source: impl FnOnce(KafkaSourceBuilder) -> KafkaSource) -> Result<Sample> {
    let (_directory, topology) = topology(settings.bootstrap()?, &[BIDS])?;
    let environment = Environment::new();
    let source = source(KafkaSource::federated(BIDS, topology)).until(Until::Latest);
    environment.source(source).uid(EVENTS).sink(BlackHole::new());
    whole(&environment, &JobOptions::default(), settings.records)
}

/// Reads the JSON columns into a blackhole; also `kafka_tumble`'s baseline.
///
/// # Errors
/// What fails the job.
pub fn read_json(settings: &Settings) -> Result<Sample> {
    read(settings, |source| source.format(Json::new(&schema())))
}

/// Runs one side, raw.
///
/// # Errors
/// What fails it.
pub fn one_raw(role: Role, settings: &Settings) -> Result<Sample> {
    if role == Role::Subject {
        return read(settings, |source| source.format(Raw::new()));
    }
    let meter = Meter::start(0);
    let mut bytes = 0;
    let rows = poll_all(settings.bootstrap()?, BIDS, |payload| {
        bytes += black_box(payload).len();
        Ok(())
    })?;
    Ok(meter.stop(rows).with("payload_bytes", bytes as f64))
}

/// Runs one side, JSON.
///
/// # Errors
/// What fails it.
pub fn one_json(role: Role, settings: &Settings) -> Result<Sample> {
    if role == Role::Subject {
        return read_json(settings);
    }
    let meter = Meter::start(0);
    let mut decoder = ReaderBuilder::new(Arc::new(schema())).with_batch_size(BATCH_ROWS).build_decoder()?;
    let mut decoded = 0;
    poll_all(settings.bootstrap()?, BIDS, |payload| {
        decoder.decode(payload)?;
        if decoder.len() >= BATCH_ROWS {
            decoded += decoder.flush()?.map_or(0, |batch| black_box(batch).num_rows() as u64);
        }
        Ok(())
    })?;
    decoded += decoder.flush()?.map_or(0, |batch| black_box(batch).num_rows() as u64);
    Ok(meter.stop(decoded))
}

/// The report's rows.
pub fn rows_raw(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    vec![per_core_second(name, subject, baseline, "BaseConsumer poll loop", "ratio >= 1.1")]
}

/// The report's rows.
pub fn rows_json(name: &str, subject: &Sample, baseline: &Sample) -> Vec<Row> {
    vec![per_core_second(name, subject, baseline, "poll loop and arrow-json, each record", ">= 0.9 M")]
}
