//! From the header's bytes to columns that a stream can be keyed by.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringViewBuilder, UInt64Builder, cast::AsArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use thalweg_engine::metrics::Counter;
use thalweg_engine::operator::{OpenContext, Operator, OperatorContext, OperatorFactory, Step, single_input};
use thalweg_engine::record::{Batch, EdgeSchema, Mode};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};

use crate::record_id::RecordId;

/// The column of a record's producer; null when the record has no id.
pub(super) const PRODUCER: &str = "id_producer";
/// The column of its sequence.
pub(super) const SEQUENCE: &str = "id_sequence";

/// Turns a binary column that holds the header [`crate::record_id::RECORD_ID_HEADER`] into the
/// columns `id_producer` and `id_sequence`, at the end. A record without an id, or with one that
/// cannot be read (counted), gets nulls.
#[derive(Clone, Debug)]
pub struct ReadRecordIds {
    header: String,
}

impl ReadRecordIds {
    /// Reads the column `header`, such as `kafka_header_thalweg_id`.
    pub fn new(header: impl Into<String>) -> Self {
        ReadRecordIds { header: header.into() }
    }
}

fn with_ids(schema: &Schema) -> SchemaRef {
    let ids = [Field::new(PRODUCER, DataType::Utf8View, true), Field::new(SEQUENCE, DataType::UInt64, true)];
    let fields = schema.fields().iter().map(|field| field.as_ref().clone()).chain(ids);
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

impl OperatorFactory for ReadRecordIds {
    fn name(&self) -> String {
        format!("record ids of {}", self.header)
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Reader { header: self.header.clone(), bad: Counter::default() }))
    }

    fn takes(&self, _input: usize, _mode: &Mode) -> bool {
        true
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        let field = input.schema.field_with_name(&self.header);
        let field = field
            .map_err(|_| Error::user(format!("there is no column {:?} with record ids", self.header)))?;
        if field.data_type() != &DataType::BinaryView {
            let data_type = field.data_type();
            return Err(Error::user(format!("column {:?} is {data_type}, not binary", self.header)));
        }
        Ok(vec![EdgeSchema { schema: with_ids(&input.schema), ..input.clone() }])
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

struct Reader {
    header: String,
    bad: Counter,
}

impl Operator for Reader {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        self.bad = cx.metrics.counter("record_ids_bad_total", "Record ids that could not be read.");
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let records = batch.records();
        let header = records.column_by_name(&self.header);
        let header = header.ok_or_else(|| Error::internal(format!("no column {:?}", self.header)))?;
        let mut producers = StringViewBuilder::new().with_deduplicate_strings();
        let mut sequences = UInt64Builder::with_capacity(batch.row_count());
        for value in header.as_binary_view() {
            let id = value.map(RecordId::decode).transpose().unwrap_or_else(|_| {
                self.bad.add(1);
                None
            });
            producers.append_option(id.as_ref().map(|id| id.producer));
            sequences.append_option(id.as_ref().map(|id| id.sequence));
        }
        let ids: [ArrayRef; 2] = [Arc::new(producers.finish()), Arc::new(sequences.finish())];
        let columns = records.columns().iter().cloned().chain(ids).collect();
        cx.emit(Batch::new(RecordBatch::try_new(with_ids(&records.schema()), columns)?));
        Ok(Step::Done)
    }
}
