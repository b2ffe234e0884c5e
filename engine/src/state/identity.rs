//! What an operator's state is, in words: a checkpoint keeps them, and a restore compares them with
//! the job's (H7).
//!
//! An identity names what the stored bytes mean: the kind of operator, its key, a window's size and
//! offset, the aggregates, what a source reads. What may change between two runs without changing
//! that is not in it: parallelism, memory, credentials, lateness, rates, formats. The texts are part
//! of every checkpoint: a change of one refuses the checkpoints that were made before.

use arrow::datatypes::{DataType, Schema, TimeUnit};
use serde::{Deserialize, Serialize};

/// The identity of one operator's state.
///
/// ```
/// use arrow::datatypes::{DataType, Field, Schema};
/// use thalweg_engine::state::StateIdentity;
///
/// let schema = Schema::new(vec![Field::new("user", DataType::Utf8View, false)]);
/// let hourly = |key: &[usize]| StateIdentity::of("tumbling window").keyed_by(&schema, key).with("size", "1h");
/// assert_eq!(hourly(&[0]).to_string(), "tumbling window; key user string; size 1h");
/// assert_eq!(hourly(&[]).differences(&hourly(&[0])), ["key was nothing, is user string"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateIdentity {
    kind: String,
    /// Name and type of each of the key's columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    key: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    aspects: Vec<(String, String)>,
}

impl StateIdentity {
    /// State of a kind of operator: `tumbling window`, `file source`.
    pub fn of(kind: &str) -> StateIdentity {
        StateIdentity { kind: kind.to_string(), key: Vec::new(), aspects: Vec::new() }
    }

    /// State per key, which is in these columns of the input.
    #[must_use]
    pub fn keyed_by(mut self, input: &Schema, key: &[usize]) -> StateIdentity {
        self.key = columns(input, key);
        self
    }

    /// One more thing that the state's meaning depends on.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> StateIdentity {
        self.aspects.push((name.to_string(), value.into()));
        self
    }

    /// As [`StateIdentity::with`], of columns: their names and types.
    #[must_use]
    pub fn with_columns(self, name: &str, input: &Schema, of: &[usize]) -> StateIdentity {
        let text = columns_text(&columns(input, of));
        self.with(name, text)
    }

    /// What kind of operator has it.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The names of the key's columns.
    pub fn key(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(|(name, _)| name.as_str())
    }

    /// What is not as it was, for people; empty when the states are the same.
    pub fn differences(&self, now: &StateIdentity) -> Vec<String> {
        if self.kind != now.kind {
            return vec![format!("it was the state of `{}`, is that of `{}`", self.kind, now.kind)];
        }
        let (before, after) = (self.named(), now.named());
        let value = |of: &[(String, String)], name: &str| {
            let found = of.iter().find(|(other, _)| other == name);
            found.map_or_else(|| "nothing".to_string(), |(_, value)| value.clone())
        };
        let added = after.iter().filter(|(name, _)| before.iter().all(|(other, _)| other != name));
        let names = before.iter().chain(added).map(|(name, _)| name.as_str());
        let compared = names.map(|name| (name, value(&before, name), value(&after, name)));
        let differ = compared.filter(|(_, was, is)| was != is);
        differ.map(|(name, was, is)| format!("{name} was {was}, is {is}")).collect()
    }

    fn named(&self) -> Vec<(String, String)> {
        let key = (!self.key.is_empty()).then(|| ("key".to_string(), columns_text(&self.key)));
        key.into_iter().chain(self.aspects.iter().cloned()).collect()
    }
}

impl std::fmt::Display for StateIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.kind)?;
        self.named().iter().try_for_each(|(name, value)| write!(f, "; {name} {value}"))
    }
}

fn columns(input: &Schema, of: &[usize]) -> Vec<(String, String)> {
    let fields = of.iter().filter_map(|&column| input.fields().get(column));
    fields.map(|field| (field.name().clone(), type_word(field.data_type()))).collect()
}

fn columns_text(columns: &[(String, String)]) -> String {
    columns.iter().map(|(name, word)| format!("{name} {word}")).collect::<Vec<_>>().join(", ")
}

/// The word for a type, the same in every version: checkpoints hold it. How a type is laid out in
/// memory makes no difference.
pub fn type_word(data_type: &DataType) -> String {
    let fixed = match data_type {
        DataType::Boolean => "bool",
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::UInt8 => "uint8",
        DataType::UInt16 => "uint16",
        DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float16 => "float16",
        DataType::Float32 => "float32",
        DataType::Float64 => "float64",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytes",
        DataType::Date32 => "date",
        DataType::Timestamp(TimeUnit::Second, _) => "timestamp(s)",
        DataType::Timestamp(TimeUnit::Millisecond, _) => "timestamp(ms)",
        DataType::Timestamp(TimeUnit::Microsecond, _) => "timestamp",
        DataType::Timestamp(TimeUnit::Nanosecond, _) => "timestamp(ns)",
        DataType::FixedSizeList(item, width) => return format!("{}[{width}]", type_word(item.data_type())),
        DataType::List(item) | DataType::LargeList(item) => {
            return format!("{}[]", type_word(item.data_type()));
        }
        DataType::FixedSizeBinary(width) => return format!("bytes({width})"),
        DataType::Decimal128(precision, scale) => return format!("decimal({precision}, {scale})"),
        other => return format!("{other:?}"),
    };
    fixed.to_string()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;

    use super::*;

    fn schema() -> Schema {
        Schema::new(vec![
            Field::new("carrier", DataType::Utf8View, false),
            Field::new("tail", DataType::Utf8, true),
            Field::new("day", DataType::Date32, false),
        ])
    }

    fn window(key: &[usize], offset: &str) -> StateIdentity {
        StateIdentity::of("tumbling window").keyed_by(&schema(), key).with("offset", offset)
    }

    #[test]
    fn h7_an_identity_is_written_as_it_always_was() {
        let written = serde_json::to_string(&window(&[0, 2], "0s")).unwrap();
        let golden = r#"{"kind":"tumbling window","key":[["carrier","string"],["day","date"]],"aspects":[["offset","0s"]]}"#;
        assert_eq!(written, golden);
        assert_eq!(serde_json::from_str::<StateIdentity>(golden).unwrap(), window(&[0, 2], "0s"));
        assert_eq!(
            window(&[0, 2], "0s").to_string(),
            "tumbling window; key carrier string, day date; offset 0s"
        );
    }

    #[test]
    fn h7_differences_are_named_and_the_layout_in_memory_is_none() {
        assert_eq!(window(&[0], "0s").differences(&window(&[0], "0s")), Vec::<String>::new());
        let differences = window(&[0], "0s").differences(&window(&[1], "30m"));
        assert_eq!(differences, ["key was carrier string, is tail string", "offset was 0s, is 30m"]);
        let more = window(&[0], "0s").with("size", "1h");
        assert_eq!(window(&[0], "0s").differences(&more), ["size was nothing, is 1h"]);
        assert_eq!(more.differences(&window(&[0], "0s")), ["size was 1h, is nothing"]);
        assert_eq!(
            StateIdentity::of("aggregate").differences(&more),
            ["it was the state of `aggregate`, is that of `tumbling window`"]
        );
        for layout in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View] {
            assert_eq!(type_word(&layout), "string");
        }
    }
}
