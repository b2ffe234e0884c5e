//! Reads the steps that compute with tensors.

use std::time::Duration;

use thalweg_operators::tensor::op::Metric;
use thalweg_operators::tensor::{Batching, DeviceChoice, OnBadRow};

use crate::config::{Checker, Node, Place, Placed, Table, Text};

use super::read::read_column;
use super::read_step::read_key;
use super::spec::StepKind;
use super::transform_spec::{EmbedSpec, NearDuplicatesSpec, NearestSpec, TransformSpec};

/// `kind: embed`.
pub(super) fn read_embed(table: &Table<'_>) -> Option<StepKind> {
    let column = read_column(table, "column");
    let model = table
        .required("model", "a directory with `config.json`, `tokenizer.json` and `model.safetensors`")
        .and_then(|node| read_location(table.checker(), node));
    let output = match table.has("output") {
        true => read_column(table, "output"),
        false => Some(Placed { value: Text::from("embedding"), place: table.place() }),
    };
    let is_half = table.choice("precision", &[("f32", false), ("f16", true)]).unwrap_or(false);
    let length_max = table.integer("length_max", 1..=i64::from(u16::MAX)).map(|length| length as usize);
    let transform = read_transform(table);
    Some(StepKind::Embed(Box::new(EmbedSpec {
        column: column?,
        output: output?,
        model: model?,
        is_half,
        length_max,
        transform: transform?,
    })))
}

/// `kind: near_duplicates`.
pub(super) fn read_near_duplicates(table: &Table<'_>) -> Option<StepKind> {
    let checker = table.checker();
    let key_by = read_key(table);
    let id = read_column(table, "id");
    let embedding = read_column(table, "embedding");
    let threshold = match table.optional("threshold") {
        Some(node) => checker.parsed(node, "a cosine such as `0.9`", |text| match text.parse::<f32>() {
            Ok(cosine) if cosine > -1.0 && cosine <= 1.0 => Ok(cosine),
            _ => Err("expected a cosine above -1 and at most 1".to_string()),
        }),
        None => Some(0.9),
    };
    let keep = table.integer("keep", 1..=100_000).unwrap_or(64) as usize;
    let within = table.duration("within");
    Some(StepKind::NearDuplicates(NearDuplicatesSpec {
        key_by: key_by?,
        id: id?,
        embedding: embedding?,
        threshold: threshold?,
        keep,
        within,
    }))
}

/// `kind: nearest`.
pub(super) fn read_nearest(table: &Table<'_>) -> Option<StepKind> {
    let embedding = read_column(table, "embedding");
    let references = table
        .required("references", "a safetensors file with `vectors` and, perhaps, `ids`")
        .and_then(|node| read_location(table.checker(), node));
    let reload_every = table.duration("reload_every").filter(|&micros| micros > 0);
    let k = table.integer("k", 1..=1_000).unwrap_or(3) as usize;
    let metrics = [("cosine", Metric::Cosine), ("dot", Metric::Dot), ("l2", Metric::L2)];
    let metric = table.choice("metric", &metrics).unwrap_or(Metric::Cosine);
    let transform = read_transform(table);
    Some(StepKind::Nearest(Box::new(NearestSpec {
        embedding: embedding?,
        references: references?,
        reload_every,
        k,
        metric,
        transform: transform?,
    })))
}

/// A local path, from the job file's directory on, or the URL of an object.
pub(super) fn read_location(checker: &Checker<'_>, node: &Node) -> Option<Placed<Text>> {
    let text = checker.name(node, "a path or a URL")?;
    let whole = |text: &String| match text.contains("://") || text.starts_with("memory:") {
        true => text.clone(),
        false => checker.beside(text).display().to_string(),
    };
    Some(Placed { value: text.map(whole, Clone::clone), place: Place::from(node) })
}

/// What all transforms have in common.
pub(super) fn read_transform(table: &Table<'_>) -> Option<TransformSpec> {
    let checker = table.checker();
    let before = checker.count();
    let defaults = Batching::default();
    let batching = Batching {
        rows_max: table.integer("batch", 1..=100_000).map_or(defaults.rows_max, |rows| rows as usize),
        bytes_max: table.bytes("max_bytes").map_or(defaults.bytes_max, |bytes| bytes as usize),
        delay_max: table
            .duration("max_delay")
            .map_or(defaults.delay_max, |micros| Duration::from_micros(micros.unsigned_abs())),
        buckets: table.optional("buckets").and_then(|node| read_buckets(checker, node)).unwrap_or_default(),
        ordered: table.boolean("ordered").unwrap_or(defaults.ordered),
        in_flight_max: table.integer("in_flight", 1..=64).map_or(defaults.in_flight_max, |n| n as usize),
    };
    let device = match table.optional("device") {
        Some(node) => checker.parsed(node, "`auto`, `cpu`, `cuda` or `cuda:0`", |text| {
            text.parse::<DeviceChoice>().map_err(|_| "expected `auto`, `cpu`, `cuda` or `cuda:0`".to_string())
        }),
        None => Some(DeviceChoice::default()),
    };
    let bad_rows =
        [("fail", OnBadRow::Fail), ("drop", OnBadRow::Drop), ("dead_letter", OnBadRow::DeadLetter)];
    let spec = TransformSpec {
        batching,
        device: device.unwrap_or_default(),
        threads: table.integer("threads", 1..=1_024).unwrap_or(1) as usize,
        memory: table.bytes("memory"),
        on_bad_row: table.choice("on_bad_row", &bad_rows).unwrap_or_default(),
        allow_changed_weights: table.boolean("allow_changed_weights").unwrap_or(false),
    };
    (checker.count() == before).then_some(spec)
}

fn read_buckets(checker: &Checker<'_>, node: &Node) -> Option<Vec<usize>> {
    let items = checker.list(node)?;
    let bounds: Vec<_> = items.iter().map(|item| checker.integer(item, 1..=1 << 20)).collect();
    let bounds: Vec<usize> =
        bounds.into_iter().map(|bound| bound.map(|bound| bound as usize)).collect::<Option<_>>()?;
    if !bounds.is_sorted_by(|a, b| a < b) {
        checker.mistake_at(node, "the bounds of the buckets must rise, as in `[32, 64, 128]`");
        return None;
    }
    Some(bounds)
}
