//! Makes the sinks.

use std::collections::BTreeMap;

use thalweg_connectors::blackhole::BlackHole;
use thalweg_connectors::file::{FileSink, FileSinkFormat};
use thalweg_connectors::format::{CsvEncoder, JsonEncoder};
use thalweg_connectors::kafka::KafkaSink;
use thalweg_connectors::kafka::topology::{Cluster, Setting};
use thalweg_connectors::print::PrintSink;
use thalweg_connectors::prism::{Delivery, PrismSink, PrismTarget, RouterConfig};
use thalweg_connectors::sink::{Sink, SinkParts};
use thalweg_engine::Result;
use thalweg_engine::graph::Stream;
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::state::MemoryPlan;

use crate::config::{Checker, Placed};

use super::build::edge_of;
use super::build_format::encoder;
use super::build_step::column_index;
use super::spec::{FormatSpec, KafkaSinkSpec, Named, PrismSinkSpec, PrismTargetSpec, SinkKind, SinkSpec};

/// Makes one sink; `None` after a mistake.
pub(super) fn build_sink(
    checker: &Checker<'_>,
    named: &Named<SinkSpec>,
    input: &Stream,
    memory: Option<&MemoryPlan>,
) -> Option<Stream> {
    let edge = edge_of(input)?;
    let made = match &named.spec.kind {
        SinkKind::Print { prefix } => Ok(match prefix {
            Some(prefix) => PrintSink::new().prefix(prefix.clone()).into_parts(),
            None => PrintSink::new().into_parts(),
        }),
        SinkKind::Blackhole => Ok(BlackHole::new().into_parts()),
        SinkKind::File { path, format } => {
            Ok(FileSink::new(path.value.clone(), file_format(format)).into_parts())
        }
        SinkKind::Kafka(kafka) => {
            check_key(checker, &kafka.key, &edge)?;
            Ok(make_kafka(&named.name, kafka, memory))
        }
        SinkKind::Prism(prism) => {
            check_key(checker, &prism.key, &edge)?;
            if let Some(timestamp) = &prism.timestamp {
                column_index(checker, timestamp, &edge)?;
            }
            Ok(make_prism(prism, memory))
        }
    };
    let checked = made.and_then(|parts| agrees(parts, &edge));
    match checked {
        Ok(parts) => Some(input.sink_dyn(parts.factory, parts.committer)),
        Err(error) => {
            checker.mistake(&named.place, error.to_string());
            None
        }
    }
}

/// The parts, when they agree with what flows into them.
fn agrees(parts: SinkParts, edge: &EdgeSchema) -> Result<SinkParts> {
    parts.factory.outputs(std::slice::from_ref(edge)).map(|_| parts)
}

fn check_key(checker: &Checker<'_>, key: &[Placed<String>], edge: &EdgeSchema) -> Option<()> {
    let known: Vec<_> = key.iter().map(|column| column_index(checker, column, edge)).collect();
    known.iter().all(Option::is_some).then_some(())
}

fn file_format(format: &FormatSpec) -> FileSinkFormat {
    match format {
        FormatSpec::Csv { delimiter, header, .. } => {
            FileSinkFormat::Csv { encoder: CsvEncoder::new().delimiter(*delimiter), header: *header }
        }
        FormatSpec::Parquet => FileSinkFormat::Parquet,
        FormatSpec::Json { .. } | FormatSpec::Raw => FileSinkFormat::Json(JsonEncoder::new()),
    }
}

fn make_kafka(name: &str, spec: &KafkaSinkSpec, memory: Option<&MemoryPlan>) -> SinkParts {
    // Nobody knows which settings are secret: all are kept hidden.
    let settings: BTreeMap<_, _> =
        spec.settings.iter().map(|(name, value)| (name.clone(), Setting::Secret(value.clone()))).collect();
    let cluster = Cluster { bootstrap: spec.bootstrap_servers.clone(), settings };
    let format = spec.format.clone();
    let sink = KafkaSink::new(name, cluster, spec.topic.clone(), move || encoder(&format));
    let sink = match client_bytes(memory) {
        Some(bytes) => sink.queue_bytes(bytes),
        None => sink,
    };
    sink.key(spec.key.iter().map(|column| column.value.clone())).into_parts()
}

fn make_prism(spec: &PrismSinkSpec, memory: Option<&MemoryPlan>) -> SinkParts {
    let target = match &spec.target {
        PrismTargetSpec::Gateway(address) => PrismTarget::Gateway(address.clone()),
        PrismTargetSpec::Embedded(topology) => PrismTarget::Embedded(RouterConfig::new(topology.clone())),
    };
    let delivery = if spec.exactly_once { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce };
    let format = spec.format.clone();
    let mut sink = PrismSink::new(spec.topic.clone(), target, move || encoder(&format))
        .delivery(delivery)
        .key(spec.key.iter().map(|column| column.value.clone()));
    if let Some(timestamp) = &spec.timestamp {
        sink = sink.timestamp(timestamp.value.clone());
    }
    if let Some(directory) = &spec.staging {
        sink = sink.staging(directory.clone());
    }
    if let Some(bytes) = client_bytes(memory) {
        sink = sink.in_flight_bytes(bytes);
    }
    sink.into_parts()
}

/// What one client of brokers or of a gateway may hold.
fn client_bytes(memory: Option<&MemoryPlan>) -> Option<usize> {
    memory.and_then(|plan| usize::try_from(plan.kafka_bytes_per_client).ok())
}
