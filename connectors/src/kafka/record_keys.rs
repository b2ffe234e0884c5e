//! From key columns to the keys of Kafka records: one column as its text or bytes, several as a
//! JSON array of texts. Pure.

use arrow::array::{Array, RecordBatch, cast::AsArray};
use arrow::datatypes::{DataType, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use thalweg_engine::record::{EdgeSchema, Mode};
use thalweg_engine::{Error, Result};

use crate::format::EncodedRows;

/// The key columns of a schema.
pub(crate) struct RecordKeys(Vec<usize>);

impl RecordKeys {
    /// Finds `columns`.
    ///
    /// # Errors
    /// A user error for a column that is not there.
    pub fn new(schema: &Schema, columns: &[String]) -> Result<Self> {
        let find = |column: &String| {
            schema
                .index_of(column)
                .map_err(|_| Error::user(format!("there is no column {column:?} for the key")))
        };
        Ok(RecordKeys(columns.iter().map(find).collect::<Result<_>>()?))
    }

    /// Looks whether records with these keys say what the rows of a stream say: the versions of a row
    /// stay in their order, and replace each other and no other row, when the record's key is the
    /// stream's.
    ///
    /// # Errors
    /// A user error for another key on an upsert stream.
    pub fn check(&self, input: &EdgeSchema) -> Result<()> {
        let Mode::Upsert(key) = &input.mode else { return Ok(()) };
        let mine: Vec<&str> =
            self.0.iter().map(|&column| input.schema.field(column).name().as_str()).collect();
        if mine.iter().all(|name| key.iter().any(|column| column == name))
            && key.iter().all(|column| mine.contains(&column.as_str()))
        {
            return Ok(());
        }
        let what = if mine.is_empty() {
            "have no key".to_string()
        } else {
            format!("have the key {}", mine.join(", "))
        };
        Err(Error::user(format!(
            "the stream is {}, and the records {what}: versions of a row would lose their order, or rows \
             replace others; give the records the key {}",
            input.mode,
            key.join(", ")
        )))
    }

    /// One key a row; `None` when records have no key. A null becomes an empty text.
    ///
    /// # Errors
    /// A user error for a column that has no text.
    pub fn encode(&self, records: &RecordBatch) -> Result<Option<EncodedRows>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut keys = EncodedRows::new();
        let columns: Vec<&dyn Array> = self.0.iter().map(|index| records.column(*index).as_ref()).collect();
        if let [column] = columns.as_slice()
            && encode_bytes(*column, &mut keys)
        {
            return Ok(Some(keys));
        }
        let options = FormatOptions::default();
        let texts = columns
            .iter()
            .map(|column| ArrayFormatter::try_new(*column, &options))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::user("a key column has no text").caused_by(error))?;
        for row in 0..records.num_rows() {
            let row: Vec<String> = texts.iter().map(|text| text.value(row).to_string()).collect();
            match row.as_slice() {
                [single] => keys.buffer().extend_from_slice(single.as_bytes()),
                several => serde_json::to_writer(keys.buffer(), several)
                    .map_err(|error| Error::internal("cannot write a key").caused_by(error))?,
            }
            keys.end_row();
        }
        Ok(Some(keys))
    }
}

/// Text and bytes go as they are. False for other types.
fn encode_bytes(column: &dyn Array, keys: &mut EncodedRows) -> bool {
    let mut push = |bytes: Option<&[u8]>| {
        keys.buffer().extend_from_slice(bytes.unwrap_or_default());
        keys.end_row();
    };
    match column.data_type() {
        DataType::Utf8View => column.as_string_view().iter().for_each(|text| push(text.map(str::as_bytes))),
        DataType::Utf8 => column.as_string::<i32>().iter().for_each(|text| push(text.map(str::as_bytes))),
        DataType::BinaryView => column.as_binary_view().iter().for_each(push),
        DataType::Binary => column.as_binary::<i32>().iter().for_each(push),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use std::sync::Arc;

    #[test]
    fn one_column_is_its_text_and_several_are_a_json_array() {
        let names: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a\"b"), None]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7, -1]));
        let records = RecordBatch::try_from_iter([("name", names), ("number", numbers)]).unwrap();
        let keys = |columns: &[&str]| -> Option<Vec<String>> {
            let columns: Vec<String> = columns.iter().map(ToString::to_string).collect();
            let keys = RecordKeys::new(&records.schema(), &columns).unwrap().encode(&records).unwrap()?;
            Some(keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect())
        };
        assert_eq!(keys(&[]), None);
        assert_eq!(keys(&["name"]).unwrap(), ["a\"b", ""]);
        assert_eq!(keys(&["number"]).unwrap(), ["7", "-1"]);
        assert_eq!(keys(&["number", "name"]).unwrap(), [r#"["7","a\"b"]"#, r#"["-1",""]"#]);
        assert!(RecordKeys::new(&records.schema(), &["nope".to_string()]).is_err());
    }
}
