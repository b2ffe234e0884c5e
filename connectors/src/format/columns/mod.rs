//! Columns that grow by one value at a time and can be cut back: what a record that turns out bad
//! has left in them is taken away, so that it never reaches a batch.
//!
//! This module knows Arrow; it knows no text format. JSON and CSV fill it.

mod record;
mod string;
mod values;

pub(super) use record::Record;
pub(super) use values::{Column, Values};

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::BadTime;

/// Why a record is bad, and in which column where that is known.
#[derive(Debug)]
pub(super) struct Fault {
    /// The columns from the outermost to the one at fault.
    path: Vec<String>,
    reason: String,
    time: Option<BadTime>,
}

/// Faults are rare; boxed, so that a good value's result stays small.
pub(super) type Read<T> = Result<T, Box<Fault>>;

impl Fault {
    pub(super) fn new(reason: impl Into<String>) -> Box<Fault> {
        Box::new(Fault { path: Vec::new(), reason: reason.into(), time: None })
    }

    /// Says that it is a time that is at fault.
    pub(super) fn of_time(mut self: Box<Self>, time: BadTime) -> Box<Fault> {
        self.time = Some(time);
        self
    }

    /// What is wrong with the time, when it is one that is at fault.
    pub(super) fn time(&self) -> Option<BadTime> {
        self.time
    }

    /// Adds the column around the fault.
    pub(super) fn in_column(mut self: Box<Self>, column: &str) -> Box<Fault> {
        self.path.insert(0, column.to_string());
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            write!(f, "column {:?}: ", self.path.join("."))?;
        }
        f.write_str(&self.reason)
    }
}

/// At most this many characters of a value are shown in a reason.
const SHOWN_CHARS_MAX: usize = 40;

/// A value as it is shown in a reason: quoted and cut.
pub(super) fn shown(value: &str) -> String {
    let mut cut: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    if cut.len() < value.len() {
        cut.push('…');
    }
    format!("`{cut}`")
}

/// The same columns with every string type turned into the engine's `Utf8View`.
pub(crate) fn with_string_views(schema: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(view_field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn view_field(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(view_field).collect()),
        DataType::List(item) => DataType::List(view_field(item)),
        other => other.clone(),
    };
    Arc::new(Field::clone(field).with_data_type(data_type))
}
