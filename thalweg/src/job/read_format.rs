//! Reads `format`, a word or a table: `json`, `{kind: csv, delimiter: ";"}`.

use crate::config::{Place, Table, Value};

use super::spec::FormatSpec;

/// What a format is for: it decides which ones fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FormatUse {
    /// One message a record.
    Messages,
    /// Whole files.
    Files,
    /// Lines on a terminal.
    Lines,
}

/// Reads `format`; JSON when there is none for lines, and a mistake otherwise.
pub(super) fn read_format(table: &Table<'_>, used_for: FormatUse) -> Option<FormatSpec> {
    let checker = table.checker();
    let choices: &[(&str, FormatSpec)] = &match used_for {
        FormatUse::Messages => vec![("json", FormatSpec::Json), ("csv", csv()), ("raw", FormatSpec::Raw)],
        FormatUse::Files => vec![
            ("json", FormatSpec::Json),
            ("jsonl", FormatSpec::Json),
            ("csv", csv()),
            ("parquet", FormatSpec::Parquet),
        ],
        FormatUse::Lines => vec![("json", FormatSpec::Json), ("csv", csv())],
    };
    let expected = choices.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let node = match used_for {
        FormatUse::Lines => match table.optional("format") {
            Some(node) => node,
            None => return Some(FormatSpec::Json),
        },
        _ => table.required("format", &format!("one of {expected}"))?,
    };
    if !matches!(node.value, Value::Table(_)) {
        return checker.choice(node, choices);
    }
    let table = checker.table(node)?;
    let kind = table.required("kind", &format!("one of {expected}"));
    let mut format = kind.and_then(|node| checker.choice(node, choices));
    if let Some(FormatSpec::Csv { delimiter, header }) = &mut format {
        if let Some(text) = table.text("delimiter", "one character") {
            match text.as_bytes() {
                [byte] if byte.is_ascii() => *delimiter = *byte,
                _ if text == "\\t" || text == "tab" => *delimiter = b'\t',
                _ => {
                    let place = table.optional("delimiter").map(Place::from).unwrap_or_default();
                    checker.mistake(&place, "expected one ASCII character, or `tab`");
                }
            }
        }
        if let Some(has_header) = table.boolean("header") {
            *header = has_header;
        }
    }
    if kind.is_some() && format.is_some() {
        table.finish();
    }
    format
}

fn csv() -> FormatSpec {
    FormatSpec::Csv { delimiter: b',', header: true }
}
