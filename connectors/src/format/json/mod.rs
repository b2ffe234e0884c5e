//! JSON: one object a record.
//!
//! Each payload is scanned by itself and its values go straight into columns, so neighbours
//! cannot glue: there is no buffer in which they would touch. The cost a record: one pass over
//! its bytes to check UTF-8, one to scan, one comparison a field name while the order of fields
//! stays as it was; no allocation. Columns that the schema does not have are checked and skipped.

mod encode;
mod read;
mod scanner;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef, TimeUnit};
use thalweg_engine::Result;

pub use encode::JsonEncoder;

use super::columns::{Read, Record, with_string_views};
use super::row_decoder::{ReadRow, RowDecoder};
use super::{Decoder, Format};

/// The JSON format. What becomes of a value, by its column's type:
///
/// | column | JSON |
/// |---|---|
/// | integers | a whole number in range, also `3.0` and `1e3` |
/// | floats | a number |
/// | `Utf8View` (and `Utf8`, which is turned into it) | a string |
/// | `Boolean` | `true`, `false` |
/// | `Timestamp` | an RFC 3339 string (without an offset: UTC), or an epoch number in [`Json::epoch_unit`] |
/// | `Date32` | a string such as `2013-01-31` |
/// | `Struct` | an object |
/// | `List` | an array |
///
/// `null`, or a field that is missing, is a null; where the column takes none the record is bad.
/// Of a field that comes twice the last one counts (both must have the type); other fields are
/// ignored. A value of another type makes the record bad: nothing is guessed.
#[derive(Clone, Debug)]
pub struct Json {
    schema: SchemaRef,
    epoch: TimeUnit,
}

impl Json {
    /// Records with these columns.
    pub fn new(schema: &Schema) -> Json {
        Json { schema: with_string_views(schema), epoch: TimeUnit::Millisecond }
    }

    /// Records with the columns of a typed record.
    pub fn of<T: thalweg_engine::record::Record>() -> Json {
        Json::new(&T::schema())
    }

    /// The unit of timestamps that are numbers; milliseconds by default, as Kafka's own.
    #[must_use]
    pub fn epoch_unit(mut self, unit: TimeUnit) -> Json {
        self.epoch = unit;
        self
    }
}

impl Format for Json {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        let rows = JsonRows { epoch: self.epoch, scratch: String::new() };
        Ok(Box::new(RowDecoder::new(&self.schema, rows)?))
    }

    fn describe(&self) -> String {
        format!("json epoch {:?}", self.epoch)
    }
}

struct JsonRows {
    epoch: TimeUnit,
    scratch: String,
}

impl ReadRow for JsonRows {
    fn read(&mut self, payload: &[u8], record: &mut Record) -> Read<()> {
        read::read_payload(record, payload, self.epoch, &mut self.scratch)
    }
}
