//! CSV (RFC 4180): one line a record, columns by position or by the names of a header.
//!
//! As with JSON, each payload is split by itself and its values go straight into columns: a quote
//! that is left open makes its own record bad and no other.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use thalweg_engine::{Error, Result};

use super::columns::{Column, Fault, Read, Record, Values, shown, with_string_views};
use super::row_decoder::{ReadRow, RowDecoder};
use super::timestamp::{convert_epoch, parse_date, parse_instant};
use super::{BadTime, Decoder, EncodedRows, Encoder, Format};

/// The CSV format.
///
/// Fields belong to the schema's columns by position; a file with a header gives them by name (see
/// [`Csv::decoder_for_header`]), and then fields that no column wants are ignored. An empty field
/// without quotes is a null; in quotes it is an empty string. Numbers and `true`/`false` are as
/// Rust writes them; timestamps are RFC 3339 or whole epoch numbers in [`Csv::epoch_unit`].
#[derive(Clone, Debug)]
pub struct Csv {
    schema: SchemaRef,
    delimiter: u8,
    header: bool,
    epoch: TimeUnit,
    null: Option<Arc<str>>,
}

impl Csv {
    /// Records with these columns, separated by commas; files have no header.
    pub fn new(schema: &Schema) -> Csv {
        let schema = with_string_views(schema);
        Csv { schema, delimiter: b',', header: false, epoch: TimeUnit::Millisecond, null: None }
    }

    /// Records with the columns of a typed record.
    pub fn of<T: thalweg_engine::record::Record>() -> Csv {
        Csv::new(&T::schema())
    }

    /// A field of this text without quotes is a null too: `NA`.
    #[must_use]
    pub fn null(mut self, text: &str) -> Csv {
        self.null = Some(text.into());
        self
    }

    /// The byte between fields; a comma by default.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Csv {
        self.delimiter = delimiter;
        self
    }

    /// Whether a file's first line holds the columns' names.
    #[must_use]
    pub fn header(mut self, header: bool) -> Csv {
        self.header = header;
        self
    }

    /// The unit of timestamps that are numbers; milliseconds by default.
    #[must_use]
    pub fn epoch_unit(mut self, unit: TimeUnit) -> Csv {
        self.epoch = unit;
        self
    }

    /// Whether a file's first line holds the columns' names.
    pub fn has_header(&self) -> bool {
        self.header
    }

    /// A decoder of records whose fields go to these columns.
    fn decoder_to(&self, targets: Vec<Option<usize>>) -> Result<Box<dyn Decoder>> {
        if let Some(field) = self.schema.fields().iter().find(|field| field.data_type().is_nested()) {
            let (name, data_type) = (field.name(), field.data_type());
            return Err(Error::user(format!(
                "column {name:?} has type {data_type}, which CSV does not hold"
            )));
        }
        let (delimiter, epoch, fields) = (self.delimiter, self.epoch, Fields::default());
        let null = self.null.clone();
        Ok(Box::new(RowDecoder::new(&self.schema, CsvRows { delimiter, epoch, null, targets, fields })?))
    }

    /// A decoder for records below this header.
    ///
    /// # Errors
    /// A user error when the header is malformed, or lacks a column that takes no null.
    pub fn decoder_for_header(&self, header: &[u8]) -> Result<Box<dyn Decoder>> {
        let mut names = Vec::new();
        let mut fields = Fields::default();
        fields.split(header, self.delimiter).map_err(|fault| Error::user(format!("CSV header: {fault}")))?;
        for index in 0..fields.len() {
            names.push(self.schema.index_of(fields.get(index).0).ok());
        }
        for (index, field) in self.schema.fields().iter().enumerate() {
            if !field.is_nullable() && !names.contains(&Some(index)) {
                let name = field.name();
                return Err(Error::user(format!("CSV header: there is no field for column {name:?}")));
            }
        }
        self.decoder_to(names)
    }
}

impl Format for Csv {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        self.decoder_to((0..self.schema.fields().len()).map(Some).collect())
    }

    fn describe(&self) -> String {
        let delimiter = char::from(self.delimiter);
        let null = self.null.as_ref().map_or_else(String::new, |null| format!(" null {null:?}"));
        format!("csv delimiter {delimiter:?} header {} epoch {:?}{null}", self.header, self.epoch)
    }
}

/// The fields of one record.
#[derive(Default)]
struct Fields {
    text: String,
    /// Where each field ends in `text`, and whether it was in quotes.
    ends: Vec<(usize, bool)>,
}

impl Fields {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, index: usize) -> (&str, bool) {
        let start = if index == 0 { 0 } else { self.ends[index - 1].0 };
        let (end, quoted) = self.ends[index];
        (&self.text[start..end], quoted)
    }

    fn split(&mut self, payload: &[u8], delimiter: u8) -> Read<()> {
        self.text.clear();
        self.ends.clear();
        let line = std::str::from_utf8(payload)
            .map_err(|error| Fault::new(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
        let line = line.strip_suffix('\n').unwrap_or(line);
        let mut rest = line.strip_suffix('\r').unwrap_or(line);
        loop {
            let quoted = rest.starts_with('"');
            rest = if quoted { self.quoted(&rest[1..])? } else { self.plain(rest, delimiter)? };
            self.ends.push((self.text.len(), quoted));
            if rest.is_empty() {
                return Ok(());
            }
            if rest.as_bytes()[0] != delimiter {
                return Err(Fault::new(format!("field {}: text after the closing quote", self.len())));
            }
            rest = &rest[1..];
        }
    }

    fn plain<'a>(&mut self, rest: &'a str, delimiter: u8) -> Read<&'a str> {
        let stop = |b: u8| b == delimiter || matches!(b, b'"' | b'\n');
        let end = rest.bytes().position(stop).unwrap_or(rest.len());
        if matches!(rest.as_bytes().get(end), Some(b'"' | b'\n')) && rest.as_bytes()[end] != delimiter {
            return Err(Fault::new(format!("field {}: a quote or line end outside quotes", self.len() + 1)));
        }
        self.text.push_str(&rest[..end]);
        Ok(&rest[end..])
    }

    /// `rest` begins behind the opening quote.
    fn quoted<'a>(&mut self, mut rest: &'a str) -> Read<&'a str> {
        loop {
            let Some(end) = rest.find('"') else {
                return Err(Fault::new(format!("field {}: the closing quote is missing", self.len() + 1)));
            };
            self.text.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            if !rest.starts_with('"') {
                return Ok(rest);
            }
            self.text.push('"');
            rest = &rest[1..];
        }
    }
}

struct CsvRows {
    delimiter: u8,
    epoch: TimeUnit,
    null: Option<Arc<str>>,
    /// Which column each field goes to.
    targets: Vec<Option<usize>>,
    fields: Fields,
}

impl ReadRow for CsvRows {
    fn read(&mut self, payload: &[u8], record: &mut Record) -> Read<()> {
        self.fields.split(payload, self.delimiter)?;
        let row = record.rows();
        if self.fields.len() != self.targets.len() {
            let (found, wanted) = (self.fields.len(), self.targets.len());
            return Err(Fault::new(format!("expected {wanted} fields, found {found}")));
        }
        for (index, target) in self.targets.iter().enumerate() {
            let Some(target) = target else { continue };
            let column = &mut record.columns_mut()[*target];
            if column.len() > row {
                column.truncate(row);
            }
            let (text, quoted) = self.fields.get(index);
            let is_null = !quoted && (text.is_empty() || self.null.as_deref() == Some(text));
            read_field(column, text, is_null, self.epoch)
                .map_err(|fault| fault.in_column(column.field().name()))?;
        }
        record.end_row()
    }
}

fn read_field(column: &mut Column, text: &str, is_null: bool, epoch: TimeUnit) -> Read<()> {
    if is_null {
        return column.push_null("is empty and must not be null");
    }
    match &mut column.values {
        Values::Boolean(values) => values.append(parse(text, "true or false")?),
        Values::Int8(values) => values.push(parse(text, "an 8-bit integer")?),
        Values::Int16(values) => values.push(parse(text, "a 16-bit integer")?),
        Values::Int32(values) => values.push(parse(text, "a 32-bit integer")?),
        Values::Int64(values) => values.push(parse(text, "a 64-bit integer")?),
        Values::UInt8(values) => values.push(parse(text, "an unsigned 8-bit integer")?),
        Values::UInt16(values) => values.push(parse(text, "an unsigned 16-bit integer")?),
        Values::UInt32(values) => values.push(parse(text, "an unsigned 32-bit integer")?),
        Values::UInt64(values) => values.push(parse(text, "an unsigned 64-bit integer")?),
        Values::Float32(values) => values.push(parse(text, "a number")?),
        Values::Float64(values) => values.push(parse(text, "a number")?),
        Values::Date(values) => {
            let wanted = "a date such as 2013-01-31";
            values.push(parse_date(text).ok_or_else(|| unlike(wanted, text))?);
        }
        Values::Time(values, unit) => {
            let wanted = "a timestamp (RFC 3339 or an epoch number)";
            values.push(time(text, epoch, *unit).map_err(|bad| unlike(wanted, text).of_time(bad))?);
        }
        Values::String(values) => values.push(text),
        Values::Struct(_) | Values::List(..) => return Err(Fault::new("CSV holds no nested values")),
    }
    column.filled();
    Ok(())
}

fn time(text: &str, epoch: TimeUnit, unit: TimeUnit) -> std::result::Result<i64, BadTime> {
    let value = match parse_instant(text) {
        Some(instant) => instant.in_unit(unit),
        None => {
            let number: i128 = text.parse().map_err(|_| BadTime::Unparsable)?;
            i64::try_from(number).ok().and_then(|number| convert_epoch(number, epoch, unit))
        }
    };
    value.ok_or(BadTime::OutOfRange)
}

fn parse<T: std::str::FromStr>(text: &str, wanted: &str) -> Read<T> {
    text.parse().map_err(|_| unlike(wanted, text))
}

fn unlike(wanted: &str, found: &str) -> Box<Fault> {
    Fault::new(format!("expected {wanted}, found {}", shown(found)))
}

/// Encodes rows to lines without a line end, fields in the schema's order. A null is an empty
/// field, an empty string a pair of quotes; timestamps are RFC 3339.
#[derive(Clone, Copy, Debug)]
pub struct CsvEncoder {
    delimiter: u8,
}

impl Default for CsvEncoder {
    fn default() -> Self {
        CsvEncoder { delimiter: b',' }
    }
}

impl CsvEncoder {
    /// An encoder that puts commas between fields.
    pub fn new() -> CsvEncoder {
        CsvEncoder::default()
    }

    /// The byte between fields.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> CsvEncoder {
        self.delimiter = delimiter;
        self
    }

    /// The header line for these columns, without a line end.
    pub fn header(&self, schema: &Schema) -> Vec<u8> {
        let mut line = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                line.push(self.delimiter);
            }
            self.write_field(field.name(), &mut line);
        }
        line
    }

    fn write_field(&self, text: &str, line: &mut Vec<u8>) {
        let special = |b: u8| b == self.delimiter || matches!(b, b'"' | b'\n' | b'\r');
        if text.is_empty() || text.bytes().any(special) {
            line.push(b'"');
            line.extend_from_slice(text.replace('"', "\"\"").as_bytes());
            line.push(b'"');
        } else {
            line.extend_from_slice(text.as_bytes());
        }
    }
}

impl Encoder for CsvEncoder {
    fn encode(&mut self, records: &RecordBatch, rows: &mut EncodedRows) -> Result<()> {
        let schema = records.schema();
        let mut columns = Vec::new();
        for (field, column) in schema.fields().iter().zip(records.columns()) {
            if field.data_type().is_nested() {
                let (name, data_type) = (field.name(), field.data_type());
                return Err(Error::user(format!("column {name:?} is {data_type}, which CSV does not hold")));
            }
            columns.push(match column.data_type() {
                DataType::Dictionary(_, value) => cast(column, value)?,
                _ => Arc::clone(column),
            });
        }
        let options = FormatOptions::default();
        let formatters: Vec<_> = columns
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<_, _>>()?;
        let mut text = String::new();
        for row in 0..records.num_rows() {
            for (index, formatter) in formatters.iter().enumerate() {
                if index > 0 {
                    rows.buffer().push(self.delimiter);
                }
                if columns[index].is_valid(row) {
                    text.clear();
                    formatter.value(row).write(&mut text)?;
                    self.write_field(&text, rows.buffer());
                }
            }
            rows.end_row();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Decoded;
    use super::*;
    use arrow::array::cast::AsArray;
    use arrow::array::{ArrayRef, Float64Array, Int64Array, StringViewArray, TimestampMicrosecondArray};
    use arrow::datatypes::{Field, Int64Type};
    use proptest::prelude::*;
    use thalweg_engine::record::time_type;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("s", DataType::Utf8View, true),
            Field::new("f", DataType::Float64, true),
            Field::new("t", time_type(), true),
        ])
    }

    fn decode(payloads: &[&[u8]]) -> Decoded {
        let mut decoder = Csv::new(&schema()).decoder().unwrap();
        payloads.iter().for_each(|payload| decoder.push(payload));
        decoder.flush().unwrap()
    }

    #[test]
    fn a_bad_line_names_its_column_and_leaves_its_neighbours_alone() {
        let decoded = decode(&[
            b"1,a,0.5,2013-01-01T00:00:00Z",
            b"2,\"open,0.5,0",
            b"x,a,0.5,0",
            b"3,a\"b,0.5,0",
            b"4,\"a\"b,0.5,0",
            b"5,a,0.5",
            b"",
            b"6,\xff,0.5,0",
            b"7,\"q\"\"q, \nr\",1e3,1357034400000\r\n",
        ]);
        let good = decoded.records.column(0).as_primitive::<Int64Type>();
        assert_eq!(good.values(), &[1, 7]);
        assert_eq!(decoded.records.column(1).as_string_view().value(1), "q\"q, \nr");
        let reasons: Vec<_> = decoded.bad.iter().map(|bad| (bad.index, bad.reason.as_str())).collect();
        assert_eq!(
            reasons,
            [
                (1, "field 2: the closing quote is missing"),
                (2, "column \"n\": expected a 64-bit integer, found `x`"),
                (3, "field 2: a quote or line end outside quotes"),
                (4, "field 2: text after the closing quote"),
                (5, "expected 4 fields, found 3"),
                (6, "expected 4 fields, found 1"),
                (7, "not UTF-8 at byte 2"),
            ]
        );
    }

    #[test]
    fn a_text_may_stand_for_null_unless_it_is_in_quotes() {
        let mut decoder = Csv::new(&schema()).null("NA").decoder().unwrap();
        decoder.push(b"NA,\"NA\",NA,");
        decoder.push(b"1,NAN,2,NA");
        let Decoded { records, bad } = decoder.flush().unwrap();
        assert!(bad.is_empty(), "{bad:?}");
        let nulls: Vec<_> = records.columns().iter().map(|column| column.null_count()).collect();
        assert_eq!(nulls, [1, 0, 1, 2]);
        assert_eq!(records.column(1).as_string_view().value(0), "NA");
        assert_eq!(decode(&[b"NA,a,1,0"]).bad.len(), 1, "without being told it is no number");
    }

    #[test]
    fn nested_columns_are_refused_by_name() {
        let inner = DataType::Struct(vec![Field::new("a", DataType::Int64, true)].into());
        let error = Csv::new(&Schema::new(vec![Field::new("deep", inner, true)])).decoder().err().unwrap();
        assert!(error.to_string().contains("column \"deep\""), "{error}");
    }

    fn row() -> impl Strategy<Value = (Option<i64>, Option<String>, Option<f64>, Option<i64>)> {
        let text = prop_oneof![".{0,20}", "[\",\r\n a]{0,6}"];
        // Times of four-digit years: RFC 3339 has no others.
        let time = -62_000_000_000_000_000_i64..250_000_000_000_000_000;
        (any::<Option<i64>>(), proptest::option::of(text), any::<Option<f64>>(), proptest::option::of(time))
    }

    proptest! {
        #[test]
        fn rows_come_back_as_they_were_written(rows in proptest::collection::vec(row(), 0..20)) {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>()),
                Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringViewArray>()),
                Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
                Arc::new(rows.iter().map(|row| row.3).collect::<TimestampMicrosecondArray>().with_data_type(time_type())),
            ];
            let records = RecordBatch::try_new(Arc::new(schema()), columns).unwrap();
            let mut encoded = EncodedRows::new();
            CsvEncoder::new().encode(&records, &mut encoded).unwrap();
            let decoded = decode(&encoded.iter().collect::<Vec<_>>());
            prop_assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
            prop_assert_eq!(decoded.records, records);
        }
    }
}
