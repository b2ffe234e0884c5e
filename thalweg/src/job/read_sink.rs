//! Reads the sinks of a job file.

use crate::config::{Placed, Table, Text};

use super::read::{read_column, read_column_names, read_inputs, read_path};
use super::read_format::{FormatUse, read_format};
use super::read_source::read_settings;
use super::spec::{KafkaSinkSpec, PrismSinkSpec, PrismTargetSpec, SinkKind, SinkSpec};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Print,
    Blackhole,
    File,
    Kafka,
    Prism,
}

const KINDS: [(&str, Kind); 5] = [
    ("print", Kind::Print),
    ("blackhole", Kind::Blackhole),
    ("file", Kind::File),
    ("kafka", Kind::Kafka),
    ("prism", Kind::Prism),
];

/// Reads one sink.
pub(super) fn read_sink(table: &Table<'_>) -> Option<SinkSpec> {
    let checker = table.checker();
    let kind = table.kind(&KINDS)?;
    let inputs = read_inputs(table, false);
    let kind = match kind {
        Kind::Print => Some(SinkKind::Print { prefix: table.text("prefix", "what stands before each line") }),
        Kind::Blackhole => Some(SinkKind::Blackhole),
        Kind::File => {
            let path = table.required("path", "a directory").and_then(|node| read_path(checker, node));
            let format = read_format(table, FormatUse::WriteFiles);
            path.zip(format).map(|(path, format)| SinkKind::File { path, format })
        }
        Kind::Kafka => read_kafka(table).map(SinkKind::Kafka),
        Kind::Prism => read_prism(table).map(SinkKind::Prism),
    };
    Some(SinkSpec { inputs: inputs?, kind: kind? })
}

fn read_kafka(table: &Table<'_>) -> Option<KafkaSinkSpec> {
    let topic = table.required_text("topic", "the topic's name");
    let servers = table.required_text("bootstrap_servers", "brokers, such as `localhost:9092`");
    let format = read_format(table, FormatUse::WriteMessages);
    let key = read_key(table);
    let settings = read_settings(table);
    Some(KafkaSinkSpec { topic: topic?, bootstrap_servers: servers?, format: format?, key, settings })
}

fn read_prism(table: &Table<'_>) -> Option<PrismSinkSpec> {
    let checker = table.checker();
    let topic = table.required_text("topic", "the logical topic's name");
    let expected = "the gateway's address, such as `http://localhost:7070`";
    let endpoint = table.optional("endpoint").and_then(|node| {
        let is_address = |text: &str| match text.starts_with("http://") || text.starts_with("https://") {
            true => Ok(()),
            false => Err("expected an address that begins with `http://` or `https://`".to_string()),
        };
        checker.parsed(node, expected, is_address)?;
        checker.name(node, expected).map(|text| text.map(|text| text.trim().to_string(), Clone::clone))
    });
    let topology = table.optional("topology").and_then(|node| read_path(checker, node));
    let target = match (endpoint, topology) {
        (Some(_), Some(topology)) => {
            checker.mistake(&topology.place, "expected either `endpoint` or `topology`, found both");
            None
        }
        (Some(endpoint), None) => Some(PrismTargetSpec::Gateway(endpoint)),
        (None, Some(topology)) => Some(PrismTargetSpec::Embedded(topology.value)),
        (None, None) => {
            if !table.has("endpoint") && !table.has("topology") {
                table.missing("endpoint", &format!("{expected}, or a `topology` to route in this process"));
            }
            None
        }
    };
    let format = read_format(table, FormatUse::WriteMessages);
    let key = read_key(table);
    let exactly_once =
        table.choice("delivery", &[("exactly_once", true), ("at_least_once", false)]).unwrap_or(true);
    let timestamp = table.has("timestamp").then(|| read_column(table, "timestamp")).flatten();
    let staging = table.path("staging");
    Some(PrismSinkSpec {
        topic: topic?,
        target: target?,
        format: format?,
        key,
        timestamp,
        exactly_once,
        staging,
    })
}

/// `key: column` or `key: [column, column]`.
fn read_key(table: &Table<'_>) -> Vec<Placed<Text>> {
    let key = table.optional("key").and_then(|node| read_column_names(table.checker(), node));
    key.unwrap_or_default()
}
