//! Makes the sinks.

use std::collections::BTreeMap;

use thalweg_connectors::blackhole::BlackHole;
use thalweg_connectors::file::{FileSink, FileSinkFormat};
use thalweg_connectors::format::{CsvEncoder, JsonEncoder};
use thalweg_connectors::kafka::topology::{Cluster, Setting};
use thalweg_connectors::kafka::{self, KafkaSink};
use thalweg_connectors::print::PrintSink;
use thalweg_connectors::sink::{Sink, SinkParts};
use thalweg_engine::graph::Stream;
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::{Error, Result};

use crate::config::{Checker, Placed};

use super::build::edge_of;
use super::build_format::encoder;
use super::build_step::column_index;
use super::spec::{FormatSpec, KafkaSinkSpec, Named, SinkKind, SinkSpec};

/// Makes one sink; `None` after a mistake.
pub(super) fn build_sink(checker: &Checker<'_>, named: &Named<SinkSpec>, input: &Stream) -> Option<Stream> {
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
            Ok(make_kafka(&named.name, kafka))
        }
        SinkKind::Prism(prism) => {
            check_key(checker, &prism.key, &edge)?;
            Err(Error::user("the Prism sink is not there yet"))
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

fn make_kafka(name: &str, spec: &KafkaSinkSpec) -> SinkParts {
    // Nobody knows which settings are secret: all are kept hidden.
    let settings: BTreeMap<_, _> = spec
        .settings
        .iter()
        .map(|(name, value)| (name.clone(), Setting::Secret(kafka::Secret::new(value.reveal()))))
        .collect();
    let cluster = Cluster { bootstrap: spec.bootstrap_servers.clone(), settings };
    let format = spec.format.clone();
    let sink = KafkaSink::new(name, cluster, spec.topic.clone(), move || encoder(&format));
    sink.key(spec.key.iter().map(|column| column.value.clone())).into_parts()
}
