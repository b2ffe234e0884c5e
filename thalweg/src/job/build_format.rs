//! Makes decoders' formats and encoders.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use thalweg_connectors::format::{
    Csv, CsvEncoder, Encoder, Format, Json, JsonEncoder, OnDecodeError, Raw, RawEncoder,
};
use thalweg_engine::{Error, Result};

use super::spec::{ColumnSpec, FormatSpec, OnDecodeErrorSpec};

/// The Arrow schema of a schema in a job file.
pub(super) fn schema_of(columns: &[ColumnSpec]) -> Schema {
    let fields = columns
        .iter()
        .map(|column| Field::new(column.name.clone(), column.data_type.clone(), column.nullable));
    Schema::new(fields.collect::<Vec<_>>())
}

/// The format that decodes messages.
///
/// # Errors
/// A user error for a format that has no messages.
pub(super) fn message_format(format: &FormatSpec, columns: &[ColumnSpec]) -> Result<Arc<dyn Format>> {
    let schema = schema_of(columns);
    Ok(match format {
        FormatSpec::Json { .. } => Arc::new(json(format, &schema)),
        FormatSpec::Csv { .. } => Arc::new(csv(format, &schema).header(false)),
        FormatSpec::Raw => Arc::new(Raw::new()),
        FormatSpec::Parquet => return Err(Error::user("Parquet is a format of files, not of messages")),
    })
}

/// The JSON format of a specification.
pub(super) fn json(format: &FormatSpec, schema: &Schema) -> Json {
    let json = Json::new(schema);
    match format {
        FormatSpec::Json { epoch_unit: Some(unit) } => json.epoch_unit(*unit),
        _ => json,
    }
}

/// The CSV format of a specification; with a header, as it says.
pub(super) fn csv(format: &FormatSpec, schema: &Schema) -> Csv {
    let csv = Csv::new(schema);
    match format {
        FormatSpec::Csv { epoch_unit, delimiter, header, null } => {
            let csv = csv.delimiter(*delimiter).header(*header);
            let csv = match null {
                Some(null) => csv.null(null.as_str()),
                None => csv,
            };
            match epoch_unit {
                Some(unit) => csv.epoch_unit(*unit),
                None => csv,
            }
        }
        _ => csv,
    }
}

/// An encoder of messages, or of lines.
///
/// # Errors
/// A user error for a format that has no messages.
pub(super) fn encoder(format: &FormatSpec) -> Result<Box<dyn Encoder>> {
    Ok(match format {
        FormatSpec::Json { .. } => Box::new(JsonEncoder::new()),
        FormatSpec::Csv { delimiter, .. } => Box::new(CsvEncoder::new().delimiter(*delimiter)),
        FormatSpec::Raw => Box::new(RawEncoder::new()),
        FormatSpec::Parquet => return Err(Error::user("Parquet is a format of files, not of messages")),
    })
}

/// The connectors' word for what is done with a record that cannot be decoded.
pub(super) fn on_decode_error(spec: OnDecodeErrorSpec) -> OnDecodeError {
    match spec {
        OnDecodeErrorSpec::Fail => OnDecodeError::Fail,
        OnDecodeErrorSpec::Drop => OnDecodeError::Drop,
        OnDecodeErrorSpec::DeadLetter => OnDecodeError::DeadLetter,
    }
}
