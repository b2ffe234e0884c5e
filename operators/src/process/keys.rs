//! Walks over a batch's rows and tells the state which key is current. Rows of one key that lie
//! side by side cost one look-up: a key is encoded once a row and compared with the one before.

use arrow::array::{Array, ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use thalweg_engine::record::{Batch, EdgeSchema, time_values};
use thalweg_engine::state::KeyedState;
use thalweg_engine::state::key_encoding::KeyColumns;
use thalweg_engine::time::Micros;
use thalweg_engine::{Error, Result};

/// Where the key and the event time are in an input's batches, and whether watermarks come with them.
#[derive(Clone, Debug)]
pub(crate) struct KeyedInput {
    pub key: Vec<usize>,
    pub types: Vec<DataType>,
    pub time: Option<usize>,
    pub watermarks: bool,
}

impl KeyedInput {
    /// Of an edge whose key is in the columns `key`.
    pub fn new(edge: &EdgeSchema, key: &[usize]) -> Self {
        let types = key.iter().map(|&column| edge.schema.field(column).data_type().clone()).collect();
        KeyedInput { key: key.to_vec(), types, time: edge.time, watermarks: edge.watermarks }
    }
}

/// The key that is current, and the buffer for the next one.
pub(crate) struct KeyCursor {
    input: KeyedInput,
    current: Vec<u8>,
    next: Vec<u8>,
    is_set: bool,
}

impl KeyCursor {
    pub fn new(input: KeyedInput) -> Self {
        KeyCursor { input, current: Vec::new(), next: Vec::new(), is_set: false }
    }

    /// Whether watermarks come with the rows.
    pub fn has_watermarks(&self) -> bool {
        self.input.watermarks
    }

    /// The types of the key's columns.
    pub fn types(&self) -> &[DataType] {
        &self.input.types
    }

    /// The key columns of a batch.
    pub fn columns(&self, batch: &Batch) -> Vec<ArrayRef> {
        self.input.key.iter().map(|&column| batch.records().column(column).clone()).collect()
    }

    /// Prepares for a batch. Whoever else set the current key meanwhile is forgotten.
    pub fn begin<'b>(&mut self, batch: &'b Batch, columns: &'b [ArrayRef]) -> Result<KeyedRows<'b>> {
        self.is_set = false;
        let hashes = batch.key_hashes().ok_or_else(|| Error::internal("a keyed batch has no key hashes"))?;
        let times = self.input.time.map(|column| time_values(batch.records(), column)).transpose()?;
        Ok(KeyedRows { hashes: hashes.values(), keys: KeyColumns::new(columns)?, times })
    }

    /// Makes the key of `row` the state's current key.
    pub fn select(&mut self, rows: &KeyedRows<'_>, row: usize, state: &mut KeyedState) {
        self.next.clear();
        rows.keys.encode(row, &mut self.next);
        if self.is_set && self.next == self.current {
            return;
        }
        state.set_current_key(rows.hashes[row], &self.next);
        std::mem::swap(&mut self.current, &mut self.next);
        self.is_set = true;
    }
}

/// The hashes, key columns and event times of one batch.
pub(crate) struct KeyedRows<'b> {
    hashes: &'b [u64],
    keys: KeyColumns<'b>,
    times: Option<&'b TimestampMicrosecondArray>,
}

impl KeyedRows<'_> {
    /// The event time of a row, when the edge has one and it is not null.
    pub fn time(&self, row: usize) -> Option<Micros> {
        self.times.filter(|times| times.is_valid(row)).map(|times| times.value(row))
    }
}
