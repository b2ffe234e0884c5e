//! Makes the sources.

use std::sync::Arc;
use std::time::Duration;

use thalweg_connectors::file::{FileSource, parquet_schema};
use thalweg_connectors::format::Raw;
use thalweg_connectors::generator::Generator;
use thalweg_connectors::kafka::{KafkaSource, OnOutage, Until};
use thalweg_engine::graph::{Environment, Stream};
use thalweg_engine::source::Source;
use thalweg_engine::state::MemoryPlan;
use thalweg_engine::{Error, Result};

use crate::config::Checker;

use super::build_event_time::with_event_time;
use super::build_format::{csv, json, message_format, on_decode_error, schema_of};
use super::spec::{FileSourceSpec, FormatSpec, KafkaSourceSpec, Named, SourceKind, SourceSpec};

/// How long one look at a cluster may take.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(3);
/// Looking more often would only load the brokers.
const DISCOVERY_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Makes one source; `None` after a mistake.
pub(super) fn build_source(
    checker: &Checker<'_>,
    environment: &Environment,
    named: &Named<SourceSpec>,
    memory: Option<&MemoryPlan>,
) -> Option<Stream> {
    let made = make(&named.spec, memory).and_then(|source| source.output().map(|_| source));
    let source = match made {
        Ok(source) => source,
        Err(error) => {
            checker.mistake(&named.place, error.to_string());
            return None;
        }
    };
    let stream = environment.source_dyn(source);
    match &named.spec.event_time {
        Some(event_time) => with_event_time(checker, stream, event_time),
        None => Some(stream),
    }
}

fn make(spec: &SourceSpec, memory: Option<&MemoryPlan>) -> Result<Arc<dyn Source>> {
    match &spec.kind {
        SourceKind::Kafka(kafka) => make_kafka(spec, kafka, memory),
        SourceKind::File(file) => make_file(spec, file),
        SourceKind::Generator(generator) => {
            let mut source = Generator::new(generator.columns.clone()).seed(generator.seed);
            if let Some(rows) = generator.rows {
                source = source.count(rows);
            }
            if let Some(rows) = generator.rows_per_second {
                source = source.rows_per_second(rows);
            }
            if let Some(rows) = generator.batch_rows {
                source = source.batch_rows(rows);
            }
            Ok(Arc::new(source))
        }
    }
}

fn make_kafka(
    spec: &SourceSpec,
    kafka: &KafkaSourceSpec,
    memory: Option<&MemoryPlan>,
) -> Result<Arc<dyn Source>> {
    let format = message_format(&kafka.format, &spec.schema)?;
    let mut source = KafkaSource::federated(kafka.topic.as_str(), kafka.topology.value.reveal())
        .format_dyn(format)
        .start(kafka.start.clone())
        .on_outage(if kafka.holds_on_outage { OnOutage::Hold } else { OnOutage::Advance })
        .on_offset_gone(kafka.on_offset_gone)
        .on_topic_recreated(kafka.on_topic_recreated)
        .on_decode_error(on_decode_error(spec.on_decode_error))
        .metadata(kafka.metadata.clone());
    if !kafka.upsert_by.is_empty() {
        source = source.upsert_by(kafka.upsert_by.iter().map(|column| column.value.as_str()));
    }
    if let Some(on_tombstone) = kafka.on_tombstone {
        source = source.on_tombstone(on_tombstone);
    }
    for (cluster, start) in &kafka.start_by_cluster {
        source = source.start_in(cluster.clone(), start.clone());
    }
    if kafka.until_latest {
        source = source.until(Until::Latest);
    }
    if let Some(bytes) = kafka.queue_bytes.or(memory.map(|plan| plan.kafka_bytes_per_client)) {
        source = source.queue_bytes(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
    if let Some(interval) = kafka.discovery_interval {
        let interval = Duration::from_micros(interval.unsigned_abs()).max(DISCOVERY_INTERVAL_MIN);
        source = source.discovery(interval, DISCOVERY_TIMEOUT);
    }
    Ok(Arc::new(source))
}

fn make_file(spec: &SourceSpec, file: &FileSourceSpec) -> Result<Arc<dyn Source>> {
    let path = file.path.value.reveal();
    let schema = schema_of(&spec.schema);
    let source = match &file.format {
        FormatSpec::Parquet if spec.schema.is_empty() => {
            if !path.is_file() {
                return Err(Error::user(
                    "`schema` is missing; it can be left out for a single Parquet file that is there",
                ));
            }
            FileSource::parquet(path, parquet_schema(path)?.as_ref())
        }
        FormatSpec::Parquet => FileSource::parquet(path, &schema),
        FormatSpec::Csv { .. } => FileSource::csv(path, csv(&file.format, &schema)),
        FormatSpec::Json { .. } => FileSource::lines(path, json(&file.format, &schema)),
        FormatSpec::Raw => FileSource::lines(path, Raw::new()),
    };
    Ok(Arc::new(source.on_decode_error(on_decode_error(spec.on_decode_error))))
}
