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
use thalweg_engine::graph::Stream;
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::state::MemoryPlan;

use crate::config::{Checker, Placed, Text};

use super::build::edge_of;
use super::build_format::encoder;
use super::build_step::{agrees, column_index};
use super::spec::{FormatSpec, KafkaSinkSpec, Named, PrismSinkSpec, PrismTargetSpec, SinkKind, SinkSpec};

/// A router has room for so many bytes: for the largest record, whatever the plan says.
const ROUTER_BYTES_MIN: usize = 2 << 20;

/// Makes one sink; `None` after a mistake.
pub(super) fn build_sink(
    checker: &Checker<'_>,
    named: &Named<SinkSpec>,
    input: &Stream,
    memory: Option<&MemoryPlan>,
) -> Option<Stream> {
    let edge = edge_of(input)?;
    let parts = match &named.spec.kind {
        SinkKind::Print { prefix } => match prefix {
            Some(prefix) => PrintSink::new().prefix(prefix.reveal().clone()).into_parts(),
            None => PrintSink::new().into_parts(),
        },
        SinkKind::Blackhole => BlackHole::new().into_parts(),
        SinkKind::File { path, format } => {
            FileSink::new(path.value.reveal(), file_format(format)).into_parts()
        }
        SinkKind::Kafka(kafka) => {
            check_key(checker, &kafka.key, &edge)?;
            make_kafka(&named.name, kafka, memory)
        }
        SinkKind::Prism(prism) => {
            check_key(checker, &prism.key, &edge)?;
            if let Some(timestamp) = &prism.timestamp {
                column_index(checker, timestamp, &edge)?;
            }
            make_prism(prism, memory)
        }
    };
    agrees(checker, &named.place, parts.factory.as_ref(), &edge)?;
    Some(input.sink_dyn(parts.factory, parts.committer))
}

fn check_key(checker: &Checker<'_>, key: &[Placed<Text>], edge: &EdgeSchema) -> Option<()> {
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
    let settings: BTreeMap<_, _> =
        spec.settings.iter().map(|(name, value)| (name.clone(), Setting::Given(value.clone()))).collect();
    let cluster = Cluster { bootstrap: spec.bootstrap_servers.reveal().clone(), settings };
    let format = spec.format.clone();
    let sink = KafkaSink::new(name, cluster, spec.topic.as_str(), move || encoder(&format));
    let sink = match client_bytes(memory) {
        Some(bytes) => sink.queue_bytes(bytes),
        None => sink,
    };
    sink.key(spec.key.iter().map(|column| column.value.as_str())).into_parts()
}

fn make_prism(spec: &PrismSinkSpec, memory: Option<&MemoryPlan>) -> SinkParts {
    let bytes = client_bytes(memory);
    let (target, in_flight_bytes) = match &spec.target {
        // Beside the records themselves: what is encoded and sent.
        PrismTargetSpec::Gateway(address) => {
            (PrismTarget::Gateway(address.reveal().clone()), bytes.map(|bytes| bytes / 2))
        }
        PrismTargetSpec::Embedded(topology) => {
            let mut router = RouterConfig::new(topology.reveal());
            // The sink's, the router's of the same records, and the brokers' clients' copies.
            let part = bytes.map(|bytes| (bytes / 4).max(ROUTER_BYTES_MIN));
            router.limits.in_flight_bytes = part.unwrap_or(router.limits.in_flight_bytes);
            (PrismTarget::Embedded(router), part)
        }
    };
    let delivery = if spec.exactly_once { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce };
    let format = spec.format.clone();
    let mut sink = PrismSink::new(spec.topic.as_str(), target, move || encoder(&format))
        .delivery(delivery)
        .key(spec.key.iter().map(|column| column.value.as_str()));
    if let Some(timestamp) = &spec.timestamp {
        sink = sink.timestamp(timestamp.value.as_str());
    }
    if let Some(directory) = &spec.staging {
        sink = sink.staging(directory.reveal());
    }
    if let Some(bytes) = in_flight_bytes {
        sink = sink.in_flight_bytes(bytes);
    }
    sink.into_parts()
}

/// What one client of brokers or of a gateway may hold.
fn client_bytes(memory: Option<&MemoryPlan>) -> Option<usize> {
    memory.and_then(|plan| usize::try_from(plan.kafka_bytes_per_client).ok())
}
