//! Reads `format`, a word or a table: `json`, `{kind: csv, delimiter: ";"}`.

use arrow::datatypes::TimeUnit;

use crate::config::{Place, Table, Value};

use super::spec::FormatSpec;

const EPOCH_UNITS: [(&str, TimeUnit); 4] = [
    ("s", TimeUnit::Second),
    ("ms", TimeUnit::Millisecond),
    ("us", TimeUnit::Microsecond),
    ("ns", TimeUnit::Nanosecond),
];

/// What a format is for: it decides which ones fit, and which of their settings mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FormatUse {
    /// Messages are decoded.
    ReadMessages,
    /// Rows become messages.
    WriteMessages,
    /// Files are decoded.
    ReadFiles,
    /// Rows go to files.
    WriteFiles,
}

impl FormatUse {
    fn reads(self) -> bool {
        matches!(self, FormatUse::ReadMessages | FormatUse::ReadFiles)
    }

    fn is_of_files(self) -> bool {
        matches!(self, FormatUse::ReadFiles | FormatUse::WriteFiles)
    }
}

/// Reads `format`, which must be there.
pub(super) fn read_format(table: &Table<'_>, used_for: FormatUse) -> Option<FormatSpec> {
    let checker = table.checker();
    let choices: &[(&str, FormatSpec)] = &match used_for {
        FormatUse::ReadMessages | FormatUse::WriteMessages => {
            vec![("json", json()), ("csv", csv()), ("raw", FormatSpec::Raw)]
        }
        FormatUse::ReadFiles => {
            let raw = ("raw", FormatSpec::Raw);
            vec![("json", json()), ("jsonl", json()), ("csv", csv()), raw, ("parquet", FormatSpec::Parquet)]
        }
        FormatUse::WriteFiles => {
            vec![("json", json()), ("jsonl", json()), ("csv", csv()), ("parquet", FormatSpec::Parquet)]
        }
    };
    let expected = choices.iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let node = table.required("format", &format!("one of {expected}"))?;
    if !matches!(node.value, Value::Table(_)) {
        return checker.choice(node, choices);
    }
    let table = checker.table(node)?;
    let kind = table.required("kind", &format!("one of {expected}"));
    let mut format = kind.and_then(|node| checker.choice(node, choices));
    if used_for.reads()
        && let Some(FormatSpec::Json { epoch_unit } | FormatSpec::Csv { epoch_unit, .. }) = &mut format
    {
        *epoch_unit = table.choice("epoch_unit", &EPOCH_UNITS);
    }
    if let Some(FormatSpec::Csv { delimiter, header, null, .. }) = &mut format {
        if let Some(text) = table.text("delimiter", "one character") {
            match text.as_str().as_bytes() {
                [byte] if byte.is_ascii() => *delimiter = *byte,
                b"\\t" | b"tab" => *delimiter = b'\t',
                _ => {
                    let place = table.optional("delimiter").map(Place::from).unwrap_or_default();
                    checker.mistake(&place, "expected one ASCII character, or `tab`");
                }
            }
        }
        if used_for.is_of_files()
            && let Some(has_header) = table.boolean("header")
        {
            *header = has_header;
        }
        if used_for.reads() {
            *null = table.text("null", "the text that stands for null, such as `NA`");
        }
    }
    if kind.is_some() && format.is_some() {
        table.finish();
    }
    format
}

fn json() -> FormatSpec {
    FormatSpec::Json { epoch_unit: None }
}

fn csv() -> FormatSpec {
    FormatSpec::Csv { epoch_unit: None, delimiter: b',', header: true, null: None }
}
