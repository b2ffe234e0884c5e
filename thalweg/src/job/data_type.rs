//! The words for types in a schema: `int64`, `string not null`, `timestamp`.

use arrow::datatypes::DataType;
use thalweg_engine::record::time_type;
use thalweg_operators::expression::did_you_mean;

const WORDS: [(&str, DataType); 23] = [
    ("string", DataType::Utf8View),
    ("int64", DataType::Int64),
    ("int32", DataType::Int32),
    ("int16", DataType::Int16),
    ("int8", DataType::Int8),
    ("uint64", DataType::UInt64),
    ("uint32", DataType::UInt32),
    ("uint16", DataType::UInt16),
    ("uint8", DataType::UInt8),
    ("float64", DataType::Float64),
    ("float32", DataType::Float32),
    ("bool", DataType::Boolean),
    ("bytes", DataType::BinaryView),
    ("date", DataType::Date32),
    // SQL's words for the same.
    ("text", DataType::Utf8View),
    ("varchar", DataType::Utf8View),
    ("bigint", DataType::Int64),
    ("int", DataType::Int64),
    ("integer", DataType::Int64),
    ("float", DataType::Float64),
    ("double", DataType::Float64),
    ("boolean", DataType::Boolean),
    ("binary", DataType::BinaryView),
];

/// The type that `text` says, and whether it may be null.
///
/// # Errors
/// What was expected.
pub fn parse_type(text: &str) -> Result<(DataType, bool), String> {
    let lower = text.trim().to_lowercase();
    let (word, nullable) = match lower.strip_suffix("not null") {
        Some(word) => (word.trim_end(), false),
        None => (lower.as_str(), true),
    };
    if word == "timestamp" {
        return Ok((time_type(), nullable));
    }
    if let Some((_, data_type)) = WORDS.iter().find(|(name, _)| *name == word) {
        return Ok((data_type.clone(), nullable));
    }
    let known = WORDS.iter().map(|(name, _)| *name).chain(["timestamp"]);
    Err(match did_you_mean(word, known) {
        Some(near) => format!("expected a type; did you mean `{near}`?"),
        None => "expected a type: `string`, `int8` to `int64`, `uint8` to `uint64`, `float32`, \
                 `float64`, `bool`, `bytes`, `timestamp` or `date`, with or without ` not null`"
            .to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_may_be_not_null_and_slips_are_noticed() {
        assert_eq!(parse_type("string"), Ok((DataType::Utf8View, true)));
        assert_eq!(parse_type("BIGINT NOT NULL"), Ok((DataType::Int64, false)));
        assert_eq!(parse_type("timestamp"), Ok((time_type(), true)));
        assert_eq!(parse_type("strng"), Err("expected a type; did you mean `string`?".into()));
        assert!(parse_type("money").unwrap_err().contains("`string`"));
    }
}
