//! What an edge promises about its batches: columns, which one is event time, and the mode.

use arrow::array::{Array, RecordBatch, TimestampMicrosecondArray, cast::AsArray};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};

use crate::{Error, Result};

/// Names that begin so are the engine's own.
pub const RESERVED_PREFIX: &str = "__";
/// The non-null `Int8` column of a retract edge: `1` inserts the row, `-1` takes it back. An upsert
/// edge may have it, too: `-1` deletes the key's row, and all but the key's columns mean nothing.
pub const OP_COLUMN: &str = "__op";

/// The type of event time everywhere: microseconds since 1970-01-01T00:00:00Z.
pub fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

/// How the rows of an edge change what came before them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Every row is new.
    #[default]
    Append,
    /// A row replaces the earlier row with the same values in these columns, or deletes it, where a
    /// column [`OP_COLUMN`] says so.
    Upsert(Vec<String>),
    /// A column [`OP_COLUMN`] says whether a row is inserted or taken back.
    Retract,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Mode::Append => f.write_str("append"),
            Mode::Upsert(key) => write!(f, "upsert by {}", key.join(", ")),
            Mode::Retract => f.write_str("retract"),
        }
    }
}

/// The promise of an edge, checked when a job is built.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeSchema {
    /// The visible columns.
    pub schema: SchemaRef,
    /// Index of the event-time column, of type [`time_type`].
    pub time: Option<usize>,
    /// Whether watermarks come with the rows: from where they are made on. The graph sets it.
    pub watermarks: bool,
    /// How rows relate to earlier ones.
    pub mode: Mode,
}

impl EdgeSchema {
    /// An append edge without event time.
    pub fn new(schema: SchemaRef) -> Self {
        EdgeSchema { schema, time: None, watermarks: false, mode: Mode::Append }
    }

    /// Names the event-time column.
    ///
    /// # Errors
    /// A user error when the column is missing or is not a microsecond timestamp.
    pub fn with_time(mut self, column: &str) -> Result<Self> {
        let index = self.schema.index_of(column).map_err(|_| {
            let known: Vec<_> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
            Error::user(format!("time column {column:?} is not among the columns {}", known.join(", ")))
        })?;
        let data_type = self.schema.field(index).data_type();
        if !matches!(data_type, DataType::Timestamp(TimeUnit::Microsecond, _)) {
            return Err(Error::user(format!(
                "time column {column:?} is {data_type}, not a timestamp in microseconds"
            )));
        }
        self.time = Some(index);
        Ok(self)
    }

    /// Says that watermarks come with the rows.
    #[must_use]
    pub fn with_watermarks(mut self) -> Self {
        self.watermarks = true;
        self
    }

    /// The event-time column, for an operator that waits for watermarks.
    ///
    /// # Errors
    /// A user error when there is none, or when no watermark would ever come.
    pub fn event_time(&self) -> Result<usize> {
        let Some(column) = self.time else {
            return Err(Error::user("the stream has no event time"));
        };
        if !self.watermarks {
            let name = self.schema.field(column).name();
            return Err(Error::user(format!(
                "the stream has the event-time column {name:?} but no watermarks: say how they are made, at \
                 the source or behind the operator that made the column"
            )));
        }
        Ok(column)
    }

    /// Whether it is an upsert whose rows may delete others.
    pub fn has_deletes(&self) -> bool {
        matches!(self.mode, Mode::Upsert(_)) && self.schema.index_of(OP_COLUMN).is_ok()
    }

    /// Sets the mode.
    #[must_use]
    pub fn with_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }
}

/// The event-time column's values of a batch, in microseconds.
///
/// # Errors
/// An internal error when the column is not a microsecond timestamp.
pub fn time_values(records: &RecordBatch, column: usize) -> Result<&TimestampMicrosecondArray> {
    let array = records.column(column);
    array
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::internal(format!("time column {column} has type {}", array.data_type())))
}
