//! Reads `kind: generator`.

use thalweg_connectors::generator::{Generate, KeyDistribution};
use thalweg_operators::expression::did_you_mean;

use crate::config::{Checker, Entry, Node, Place, Table, Value};

use super::spec::GeneratorSpec;

const KINDS: [&str; 9] =
    ["sequence", "random", "integer", "float", "key", "text_key", "text", "one_of", "time"];
const ANY: std::ops::RangeInclusive<i64> = i64::MIN..=i64::MAX;
/// Longest generated text, in bytes.
const TEXT_BYTES_MAX: i64 = 1 << 20;

/// Reads a generator.
pub(super) fn read_generator(table: &Table<'_>) -> Option<GeneratorSpec> {
    let checker = table.checker();
    let rows = table.integer("rows", 0..=i64::MAX).map(|number| number as u64);
    let rows_per_second = table.integer("rows_per_second", 1..=i64::MAX).map(|number| number as u64);
    let batch_rows = table.integer("batch_rows", 1..=i64::MAX).map(|number| number as u64);
    let seed = table.integer("seed", 0..=i64::MAX).unwrap_or(0) as u64;
    let columns = table.required("columns", "a table of columns, such as `{id: sequence}`")?;
    let columns = checker.table(columns)?;
    if columns.entries().is_empty() {
        checker.mistake(&columns.place(), "expected at least one column");
    }
    let read: Vec<_> = columns
        .entries()
        .iter()
        .map(|entry| {
            let place = Place { at: entry.key_at, path: entry.value.path.clone() };
            if entry.key.starts_with("__") {
                checker.mistake(&place, "names of columns must not begin with `__`: those are the engine's");
            }
            Some((entry.key.clone(), read_column(checker, &entry.value)?))
        })
        .collect();
    let columns = read.into_iter().collect::<Option<Vec<_>>>()?;
    Some(GeneratorSpec { rows, rows_per_second, batch_rows, seed, columns })
}

/// `sequence`, or `{integer: {min: 0, max: 9}}`.
fn read_column(checker: &Checker<'_>, node: &Node) -> Option<Generate> {
    match &node.value {
        Value::Text { .. } => checker
            .choice(node, &[("sequence", Generate::Sequence { start: 0 }), ("random", Generate::Random)]),
        Value::Table(entries) => match entries.as_slice() {
            [Entry { key, value, .. }] => read_kind(checker, node, key, value),
            _ => {
                let kinds = KINDS.join(", ");
                checker.mistake_at(node, format!("expected one kind of column with its settings: {kinds}"));
                None
            }
        },
        _ => {
            checker.mistake_at(node, format!("expected a kind of column, found {}", node.kind()));
            None
        }
    }
}

fn read_kind(checker: &Checker<'_>, node: &Node, kind: &str, value: &Node) -> Option<Generate> {
    if kind == "one_of" {
        let items = checker.list(value)?;
        if items.is_empty() {
            checker.mistake_at(value, "expected at least one value");
            return None;
        }
        let texts: Vec<_> = items.iter().map(|item| checker.text(item, "a value")).collect();
        let texts = texts.into_iter().map(|text| Some(text?.reveal().clone()));
        return Some(Generate::OneOf(texts.collect::<Option<_>>()?));
    }
    if !KINDS.contains(&kind) {
        let hint = match did_you_mean(kind, KINDS) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("expected one of {}", KINDS.join(", ")),
        };
        checker.mistake_at(node, format!("unknown kind of column `{kind}`; {hint}"));
        return None;
    }
    let table = checker.table(value)?;
    let generate = read_settings(&table, kind);
    table.finish();
    generate
}

fn read_settings(table: &Table<'_>, kind: &str) -> Option<Generate> {
    let checker = table.checker();
    let unsigned = |key: &str, first: i64| table.integer(key, first..=i64::MAX).map(|number| number as u64);
    match kind {
        "sequence" => Some(Generate::Sequence { start: unsigned("start", 0).unwrap_or(0) }),
        "random" => Some(Generate::Random),
        "integer" => {
            let min = table.integer("min", ANY).unwrap_or(0);
            let max =
                table.required("max", "the greatest value").and_then(|node| checker.integer(node, ANY))?;
            below(table, min <= max, "`min` is above `max`")?;
            Some(Generate::Integer { min, max })
        }
        "float" => {
            let number = |node| checker.parsed(node, "a number", parse_float);
            let min = table.optional("min").map_or(Some(0.0), number);
            let max = table.required("max", "what all values are below").and_then(number)?;
            let min = min?;
            below(table, min < max, "`min` must be below `max`")?;
            Some(Generate::Float { min, max })
        }
        "key" | "text_key" => {
            let cardinality = table
                .required("cardinality", "how many keys there are")
                .and_then(|node| checker.integer(node, 1..=i64::MAX));
            let zipf = table.optional("zipf").map(|node| checker.parsed(node, "an exponent", parse_float));
            let prefix = if kind == "text_key" { table.text("prefix", "a prefix") } else { None };
            let distribution = match zipf {
                None => KeyDistribution::Uniform,
                Some(exponent) => KeyDistribution::Zipf { exponent: exponent? },
            };
            let cardinality = cardinality? as u64;
            Some(match kind {
                "key" => Generate::Key { cardinality, distribution },
                _ => {
                    let prefix = prefix.map(|prefix| prefix.reveal().clone()).unwrap_or_default();
                    Generate::TextKey { prefix, cardinality, distribution }
                }
            })
        }
        "text" => {
            let min = table.integer("min_bytes", 0..=TEXT_BYTES_MAX).unwrap_or(0);
            let max = table
                .required("max_bytes", "the greatest length")
                .and_then(|node| checker.integer(node, 0..=TEXT_BYTES_MAX))?;
            below(table, min <= max, "`min_bytes` is above `max_bytes`")?;
            Some(Generate::Text { min_bytes: min as usize, max_bytes: max as usize })
        }
        _ => {
            let expected = "a time such as `2024-01-31T00:00:00Z`";
            let start = table.required("start", expected).and_then(|node| {
                checker.parsed(node, expected, |text| {
                    let time = chrono::DateTime::parse_from_rfc3339(text);
                    time.map(|time| time.timestamp_micros()).map_err(|_| format!("expected {expected}"))
                })
            });
            let step = table.required("step", "how much later the next row is, such as `10ms`");
            let step = step.and_then(|node| checker.duration(node));
            let jitter = table.duration("jitter").unwrap_or(0);
            Some(Generate::Time { start: start?, step: step?, jitter })
        }
    }
}

fn below(table: &Table<'_>, good: bool, message: &str) -> Option<()> {
    if !good {
        table.checker().mistake(&table.place(), message);
    }
    good.then_some(())
}

fn parse_float(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|number| number.is_finite())
        .ok_or_else(|| "expected a number".to_string())
}
