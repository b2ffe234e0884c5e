//! Reads `kind: generator`.

use crate::config::{Checker, Entry, Node, Place, Placed, Table, Value};

use super::spec::{GeneratorColumn, GeneratorSpec};

const EXPECTED: &str =
    "`sequence`, `{sequence: {start, step}}`, `{uniform: {min, max}}`, `{one_of: [a, b]}` or `{time: {start, step}}`";

/// Reads a generator.
pub(super) fn read_generator(table: &Table<'_>) -> Option<GeneratorSpec> {
    let checker = table.checker();
    let rows = table.integer("rows", 0..=i64::MAX).map(|number| number as u64);
    let rows_per_second = table.integer("rows_per_second", 1..=i64::MAX).map(|number| number as u64);
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
            Some((Placed { value: entry.key.clone(), place }, read_column(checker, &entry.value)?))
        })
        .collect();
    let columns = read.into_iter().collect::<Option<Vec<_>>>()?;
    Some(GeneratorSpec { rows, rows_per_second, seed, columns })
}

fn read_column(checker: &Checker<'_>, node: &Node) -> Option<GeneratorColumn> {
    match &node.value {
        Value::Text { .. } => {
            checker.choice(node, &[("sequence", GeneratorColumn::Sequence { start: 0, step: 1 })])
        }
        Value::Table(entries) => match entries.as_slice() {
            [Entry { key, value, .. }] => read_kind(checker, node, key, value),
            _ => {
                checker.mistake_at(node, format!("expected one of {EXPECTED}"));
                None
            }
        },
        _ => {
            checker.mistake_at(node, format!("expected {EXPECTED}, found {}", node.kind()));
            None
        }
    }
}

fn read_kind(checker: &Checker<'_>, node: &Node, key: &str, value: &Node) -> Option<GeneratorColumn> {
    match key {
        "sequence" => {
            let table = checker.table(value)?;
            let start = table.integer("start", i64::MIN..=i64::MAX).unwrap_or(0);
            let step = table.integer("step", i64::MIN..=i64::MAX).unwrap_or(1);
            table.finish();
            Some(GeneratorColumn::Sequence { start, step })
        }
        "uniform" => {
            let table = checker.table(value)?;
            let min = table.integer("min", i64::MIN..=i64::MAX).unwrap_or(0);
            let max = table.required("max", "the greatest value")?;
            let max = checker.integer(max, i64::MIN..=i64::MAX);
            table.finish();
            let max = max?;
            if max < min {
                checker.mistake_at(value, format!("`max` must not be less than `min`, which is {min}"));
                return None;
            }
            Some(GeneratorColumn::Uniform { min, max })
        }
        "one_of" => {
            let items = checker.list(value)?;
            if items.is_empty() {
                checker.mistake_at(value, "expected at least one value");
                return None;
            }
            let texts: Vec<_> = items.iter().map(|item| checker.text(item, "a value")).collect();
            Some(GeneratorColumn::OneOf(texts.into_iter().collect::<Option<_>>()?))
        }
        "time" => {
            let table = checker.table(value)?;
            let start = table.required("start", "a time such as `2024-01-31T00:00:00Z`")?;
            let start = checker.parsed(start, "a time", |text| {
                chrono::DateTime::parse_from_rfc3339(text)
                    .map(|time| time.timestamp_micros())
                    .map_err(|_| "expected a time such as `2024-01-31T00:00:00Z`".to_string())
            });
            let step = table.required("step", "how far the next row is, such as `10ms`")?;
            let step = checker.duration(step);
            table.finish();
            Some(GeneratorColumn::Time { start: start?, step: step? })
        }
        _ => {
            checker.mistake_at(node, format!("unknown kind of column `{key}`; expected {EXPECTED}"));
            None
        }
    }
}
