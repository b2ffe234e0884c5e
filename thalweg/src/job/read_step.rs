//! Reads the steps of a job file.

use crate::config::{Node, Place, Placed, Table, Text, Value};

use super::read::{placed_text, read_column, read_column_names, read_inputs};
use super::read_event_time::read_watermarks;
use super::read_tensor::read_tensor;
use super::read_transform::{read_embed, read_near_duplicates, read_nearest};
use super::spec::{AggregateSpec, ComputedSpec, StepKind, StepSpec};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Filter,
    Project,
    WithColumns,
    Union,
    Watermarks,
    Window,
    Aggregate,
    Deduplicate,
    Embed,
    NearDuplicates,
    Nearest,
    Tensor,
}

const KINDS: [(&str, Kind); 12] = [
    ("filter", Kind::Filter),
    ("project", Kind::Project),
    ("with_columns", Kind::WithColumns),
    ("union", Kind::Union),
    ("watermarks", Kind::Watermarks),
    ("window", Kind::Window),
    ("aggregate", Kind::Aggregate),
    ("deduplicate", Kind::Deduplicate),
    ("embed", Kind::Embed),
    ("near_duplicates", Kind::NearDuplicates),
    ("nearest", Kind::Nearest),
    ("tensor", Kind::Tensor),
];

/// Where a Kafka source with `metadata: [{header: thalweg-id}]` puts the records' ids.
const RECORD_ID_COLUMN: &str = "kafka_header_thalweg_id";

/// Reads one step.
pub(super) fn read_step(table: &Table<'_>) -> Option<StepSpec> {
    let kind = table.kind(&KINDS)?;
    let inputs = read_inputs(table, kind == Kind::Union);
    let kind = match kind {
        Kind::Filter => placed_text(table, "where", "a condition such as `dep_delay > 60`")
            .map(|condition| StepKind::Filter { condition }),
        Kind::Project => read_columns(table).map(|columns| StepKind::Project { columns }),
        Kind::WithColumns => read_columns(table).map(|columns| StepKind::WithColumns { columns }),
        Kind::Union => Some(StepKind::Union),
        Kind::Watermarks => read_watermarks(table).map(StepKind::Watermarks),
        Kind::Window => read_window(table),
        Kind::Aggregate => {
            let key_by = read_key(table);
            let aggregates = read_aggregates(table);
            key_by.zip(aggregates).map(|(key_by, aggregates)| StepKind::Aggregate { key_by, aggregates })
        }
        Kind::Embed => read_embed(table),
        Kind::NearDuplicates => read_near_duplicates(table),
        Kind::Nearest => read_nearest(table),
        Kind::Tensor => read_tensor(table),
        Kind::Deduplicate => {
            let id = table.has("id").then(|| read_column(table, "id"));
            let id = id.unwrap_or_else(|| {
                Some(Placed { value: Text::from(RECORD_ID_COLUMN), place: table.place() })
            });
            id.map(|id| StepKind::Deduplicate { id })
        }
    };
    Some(StepSpec { inputs: inputs?, kind: kind? })
}

/// `columns`: a table of names and SQL, or a list of columns that are passed on and of such tables.
fn read_columns(table: &Table<'_>) -> Option<Vec<ComputedSpec>> {
    let checker = table.checker();
    let node = table.required("columns", "a table of names and SQL expressions")?;
    let mut columns = Vec::new();
    let mut good = true;
    let mut computed = |node: &Node| {
        let Some(table) = checker.table(node) else {
            good = false;
            return Vec::new();
        };
        let read = table.entries().iter().map(|entry| {
            let sql = checker.name(&entry.value, "an SQL expression")?;
            Some(ComputedSpec {
                name: Text::from(entry.key.as_str()),
                sql: Placed {
                    value: sql,
                    place: Place { at: entry.value.at, path: entry.value.path.clone() },
                },
            })
        });
        let read: Vec<_> = read.collect();
        good &= read.iter().all(Option::is_some);
        read.into_iter().flatten().collect::<Vec<_>>()
    };
    match &node.value {
        Value::List(items) => {
            for item in items {
                match &item.value {
                    Value::Text { .. } => {
                        // A bare name is passed on as it is.
                        if let Some(name) = checker.name(item, "the name of a column") {
                            let quoted = |name: &String| format!("\"{}\"", name.replace('"', "\"\""));
                            let sql =
                                Placed { value: name.map(quoted, Clone::clone), place: Place::from(item) };
                            columns.push(ComputedSpec { name, sql });
                        }
                    }
                    _ => columns.extend(computed(item)),
                }
            }
        }
        _ => columns.extend(computed(node)),
    }
    if columns.is_empty() && good {
        checker.mistake_at(node, "expected at least one column");
    }
    for (index, column) in columns.iter().enumerate() {
        if columns[..index].iter().any(|earlier| earlier.name == column.name) {
            checker.mistake(&column.sql.place, format!("column `{}` is made twice", column.name));
            good = false;
        }
    }
    (good && !columns.is_empty()).then_some(columns)
}

fn read_window(table: &Table<'_>) -> Option<StepKind> {
    let checker = table.checker();
    let key_by = read_key(table);
    let window = table.required("window", "`{tumbling: 1h}`").and_then(|node| checker.table(node));
    let (size, offset) = match window {
        Some(window) => {
            let size = window.required("tumbling", "the window's size, such as `1h`").and_then(|node| {
                let size = checker.duration(node)?;
                if size <= 0 {
                    checker.mistake_at(node, "a window must be longer than nothing");
                }
                (size > 0).then_some(size)
            });
            let offset = window.duration("offset").unwrap_or(0);
            window.finish();
            (size, offset)
        }
        None => (None, 0),
    };
    let allowed_lateness = table.duration("allowed_lateness").unwrap_or(0);
    let aggregates = read_aggregates(table);
    Some(StepKind::Window { key_by: key_by?, size: size?, offset, allowed_lateness, aggregates: aggregates? })
}

pub(super) fn read_key(table: &Table<'_>) -> Option<Vec<Placed<Text>>> {
    let checker = table.checker();
    let node = table.required("key_by", "a column or a list of columns")?;
    let columns = read_column_names(checker, node)?;
    if columns.is_empty() {
        checker.mistake_at(node, "expected at least one column");
        return None;
    }
    Some(columns)
}

/// `aggregates: {name: function(argument)}`.
fn read_aggregates(table: &Table<'_>) -> Option<Vec<AggregateSpec>> {
    let checker = table.checker();
    let node =
        table.required("aggregates", "a table such as `{flights: count(), delay: mean(dep_delay)}`")?;
    let aggregates = checker.table(node)?;
    if aggregates.entries().is_empty() {
        checker.mistake_at(node, "expected at least one aggregate");
        return None;
    }
    let read: Vec<_> = aggregates
        .entries()
        .iter()
        .map(|entry| {
            let expected = "an aggregate such as `sum(tokens)`";
            let (function, argument) = checker.parsed(&entry.value, expected, parse_aggregate)?;
            let value = checker.name(&entry.value, expected)?;
            let part = |part: String| value.map(|_| part, Clone::clone);
            let (function, argument) = (part(function), argument.map(part));
            let text = Placed { value: value.clone(), place: Place::from(&entry.value) };
            Some(AggregateSpec { name: entry.key.clone(), text, function, argument })
        })
        .collect();
    read.into_iter().collect()
}

/// `function(argument)`; `count(*)` is `count()`.
fn parse_aggregate(text: &str) -> Result<(String, Option<String>), String> {
    let expected = || "expected an aggregate such as `count()` or `sum(tokens)`".to_string();
    let (function, rest) = text.split_once('(').ok_or_else(expected)?;
    let argument = rest.trim_end().strip_suffix(')').ok_or_else(expected)?.trim();
    let function = function.trim().to_lowercase();
    if function.is_empty() || !function.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(expected());
    }
    let argument = (!argument.is_empty() && argument != "*").then(|| argument.to_string());
    Ok((function, argument))
}

#[cfg(test)]
mod tests {
    use super::parse_aggregate;

    #[test]
    fn aggregates_are_functions_of_one_argument() {
        assert_eq!(parse_aggregate("count()"), Ok(("count".into(), None)));
        assert_eq!(parse_aggregate("COUNT( * )"), Ok(("count".into(), None)));
        assert_eq!(parse_aggregate("sum(a + abs(b))"), Ok(("sum".into(), Some("a + abs(b)".into()))));
        for wrong in ["count", "count(", "(x)", "a b(c)", ""] {
            assert!(parse_aggregate(wrong).is_err(), "{wrong}");
        }
    }
}
