//! Reads the sources of a job file.

use thalweg_connectors::kafka::{MetadataColumn, OnOffsetGone, OnTombstone, OnTopicRecreated, Start};

use crate::config::{Checker, FilePath, Node, Place, Placed, Secret, Table, Value};

use super::data_type::parse_type;
use super::read::{read_column_names, read_path};
use super::read_event_time::read_event_time;
use super::read_format::{FormatUse, read_format};
use super::read_generator::read_generator;
use super::spec::{
    ColumnSpec, FileSourceSpec, FormatSpec, KafkaSourceSpec, OnDecodeErrorSpec, SourceKind, SourceSpec,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kafka,
    File,
    Generator,
}

/// Reads one source.
pub(super) fn read_source(table: &Table<'_>, topology: Option<&Placed<FilePath>>) -> Option<SourceSpec> {
    let checker = table.checker();
    let event_time = table.optional("event_time").and_then(read_event_time(table));
    let kinds = [("kafka", Kind::Kafka), ("file", Kind::File), ("generator", Kind::Generator)];
    let kind = table.kind(&kinds)?;
    let schema = if kind == Kind::Generator { Some(Vec::new()) } else { read_schema(table) };
    let on_decode_error = match kind {
        Kind::Generator => None,
        _ => table.choice(
            "on_decode_error",
            &[
                ("fail", OnDecodeErrorSpec::Fail),
                ("drop", OnDecodeErrorSpec::Drop),
                ("dead_letter", OnDecodeErrorSpec::DeadLetter),
            ],
        ),
    };
    let kind = match kind {
        Kind::Kafka => read_kafka(table, topology).map(SourceKind::Kafka),
        Kind::File => read_file(table).map(SourceKind::File),
        Kind::Generator => read_generator(table).map(SourceKind::Generator),
    }?;
    let schema = schema?;
    let needs_schema = match &kind {
        SourceKind::Kafka(kafka) => kafka.format != FormatSpec::Raw,
        SourceKind::File(file) => !matches!(file.format, FormatSpec::Parquet | FormatSpec::Raw),
        SourceKind::Generator(_) => false,
    };
    if needs_schema && schema.is_empty() && !table.has("schema") {
        table.missing("schema", "a table of columns, such as `{carrier: string, dep_delay: int64}`");
        return None;
    }
    if let SourceKind::Kafka(KafkaSourceSpec { format: FormatSpec::Raw, .. })
    | SourceKind::File(FileSourceSpec { format: FormatSpec::Raw, .. }) = &kind
        && let Some(node) = table.optional("schema")
    {
        checker.mistake_at(node, "`raw` has one column, `payload`, and takes no schema");
    }
    Some(SourceSpec {
        schema,
        event_time,
        on_decode_error: on_decode_error.unwrap_or(OnDecodeErrorSpec::Fail),
        kind,
    })
}

/// `schema: {name: type, ...}`, or a list of such tables.
fn read_schema(table: &Table<'_>) -> Option<Vec<ColumnSpec>> {
    let checker = table.checker();
    let Some(node) = table.optional("schema") else {
        return Some(Vec::new());
    };
    let tables: Vec<&Node> = match &node.value {
        Value::List(items) => items.iter().collect(),
        _ => vec![node],
    };
    let mut columns: Vec<ColumnSpec> = Vec::new();
    let mut good = true;
    for entry in tables.into_iter().filter_map(|node| checker.table(node)).flat_map(|table| {
        // The entries live as long as the tree, not as the reader of the table.
        table.entries().iter()
    }) {
        let name = entry.key.clone();
        let place = Place { at: entry.key_at, path: entry.value.path.clone() };
        if name.starts_with("__") || name.is_empty() {
            checker.mistake(&place, "names of columns must not begin with `__`: those are the engine's");
        }
        if columns.iter().any(|column| column.name == name) {
            checker.mistake(&place, "this column stands twice");
        }
        match checker.parsed(&entry.value, "a type such as `string` or `int64`", parse_type) {
            Some((data_type, nullable)) => columns.push(ColumnSpec { name, data_type, nullable }),
            None => good = false,
        }
    }
    if columns.is_empty() && good {
        checker.mistake_at(node, "expected at least one column");
    }
    (good && !columns.is_empty()).then_some(columns)
}

fn read_kafka(table: &Table<'_>, shared: Option<&Placed<FilePath>>) -> Option<KafkaSourceSpec> {
    let checker = table.checker();
    let topic = table.required_text("topic", "the logical topic's name");
    let topology = match table.optional("topology") {
        Some(node) => read_path(checker, node),
        None => shared.cloned(),
    };
    if topology.is_none() && !table.has("topology") {
        table.missing("topology", "a topology file, here or at the top of the job");
    }
    let format = read_format(table, FormatUse::ReadMessages);
    let start = table.optional("start").map_or(Some(Start::Earliest), |node| read_start(checker, node));
    let start_by_cluster = table
        .optional("start_by_cluster")
        .and_then(|node| checker.table(node))
        .map(|clusters| {
            let positions = clusters.entries().iter();
            positions
                .filter_map(|entry| Some((entry.key.clone(), read_start(checker, &entry.value)?)))
                .collect::<Vec<_>>()
        })
        .unwrap_or_default();
    let until_latest = table.choice("until", &[("latest", true), ("forever", false)]).unwrap_or(false);
    let holds = table.choice("on_outage", &[("advance", false), ("hold", true)]).unwrap_or(false);
    let on_offset_gone = table.choice(
        "on_offset_gone",
        &[
            ("fail", OnOffsetGone::Fail),
            ("earliest", OnOffsetGone::Earliest),
            ("latest", OnOffsetGone::Latest),
        ],
    );
    let on_topic_recreated = table.choice(
        "on_topic_recreated",
        &[("fail", OnTopicRecreated::Fail), ("restart", OnTopicRecreated::Restart)],
    );
    let metadata = read_metadata(table);
    let key = table.optional("upsert_by");
    let upsert_by = key.map_or_else(|| Some(Vec::new()), |node| read_column_names(checker, node));
    let on_tombstone = table.choice(
        "on_tombstone",
        &[("delete", OnTombstone::Delete), ("row", OnTombstone::Row), ("drop", OnTombstone::Drop)],
    );
    let discovery_interval = table.duration("discovery_interval");
    let queue_bytes = table.bytes("queue");
    if on_tombstone == Some(OnTombstone::Delete)
        && key.is_none()
        && let Some(node) = table.optional("on_tombstone")
    {
        checker.mistake_at(node, "`delete` needs `upsert_by`, the columns by which rows replace each other");
        return None;
    }
    Some(KafkaSourceSpec {
        topic: topic?,
        topology: topology?,
        format: format?,
        start: start?,
        start_by_cluster,
        until_latest,
        holds_on_outage: holds,
        discovery_interval,
        on_offset_gone: on_offset_gone.unwrap_or_default(),
        on_topic_recreated: on_topic_recreated.unwrap_or_default(),
        metadata,
        upsert_by: upsert_by?,
        on_tombstone,
        queue_bytes,
    })
}

/// `metadata: [key, timestamp, header: name]`.
fn read_metadata(table: &Table<'_>) -> Vec<MetadataColumn> {
    let checker = table.checker();
    let items = table.optional("metadata").and_then(|node| checker.list(node)).unwrap_or_default();
    let words = [
        ("key", MetadataColumn::Key),
        ("timestamp", MetadataColumn::Timestamp),
        ("cluster", MetadataColumn::Cluster),
        ("topic", MetadataColumn::Topic),
        ("partition", MetadataColumn::Partition),
        ("offset", MetadataColumn::Offset),
    ];
    let column = |node: &Node| match &node.value {
        Value::Table(entries) => match entries.as_slice() {
            [entry] if entry.key == "header" => {
                let name = checker.name(&entry.value, "a header's name")?;
                if name.is_foreign() {
                    checker.mistake_at(
                        &entry.value,
                        "a header's name becomes a column's: it stands in the file",
                    );
                    return None;
                }
                Some(MetadataColumn::Header(name.reveal().clone()))
            }
            _ => {
                checker.mistake_at(node, "expected `header: name`");
                None
            }
        },
        _ => checker.choice(node, &words),
    };
    items.iter().filter_map(column).collect()
}

/// What goes to librdkafka as it is. Nobody knows which of them are secret: all are kept hidden.
pub(super) fn read_settings(table: &Table<'_>) -> Vec<(String, Secret)> {
    let checker = table.checker();
    let Some(table) = table.optional("settings").and_then(|node| checker.table(node)) else {
        return Vec::new();
    };
    let settings = table.entries().iter();
    settings.filter_map(|entry| Some((entry.key.clone(), checker.secret(&entry.value)?))).collect()
}

/// `earliest`, `latest`, or a time.
fn read_start(checker: &Checker<'_>, node: &Node) -> Option<Start> {
    let expected = "`earliest`, `latest` or a time such as `2024-01-31T00:00:00Z`";
    checker.parsed(node, expected, |text| match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        _ => chrono::DateTime::parse_from_rfc3339(text)
            .map(|time| Start::Timestamp(time.timestamp_millis()))
            .map_err(|_| format!("expected {expected}")),
    })
}

fn read_file(table: &Table<'_>) -> Option<FileSourceSpec> {
    let path = table.required("path", "a file, a directory or a pattern such as `data/*.csv`");
    let path = path.and_then(|node| read_path(table.checker(), node));
    let format = read_format(table, FormatUse::ReadFiles);
    Some(FileSourceSpec { path: path?, format: format? })
}
