//! Bytes as base64 in formats that people read, such as the manifest; as they are elsewhere.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Serialises bytes.
///
/// # Errors
/// The serialiser's own.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        STANDARD.encode(bytes).serialize(serializer)
    } else {
        bytes.serialize(serializer)
    }
}

/// Deserialises bytes.
///
/// # Errors
/// The deserialiser's own; for what is not base64.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    if !deserializer.is_human_readable() {
        return Vec::deserialize(deserializer);
    }
    let text = Cow::<str>::deserialize(deserializer)?;
    STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)
}

/// Bytes with the serialisation of this module.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct Text(#[serde(with = "self")] Vec<u8>);

/// The same for bytes that may be missing.
pub mod option {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Text};

    /// Serialises bytes.
    ///
    /// # Errors
    /// The serialiser's own.
    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        bytes.clone().map(Text).serialize(serializer)
    }

    /// Deserialises bytes.
    ///
    /// # Errors
    /// The deserialiser's own; for what is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
    }
}

/// The same for a list.
pub mod list {
    use super::{Deserialize, Deserializer, Serializer, Text};

    /// Serialises a list of bytes.
    ///
    /// # Errors
    /// The serialiser's own.
    pub fn serialize<S: Serializer>(items: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(items.iter().map(|item| Text(item.clone())))
    }

    /// Deserialises a list of bytes.
    ///
    /// # Errors
    /// The deserialiser's own; for what is not base64.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        Ok(Vec::<Text>::deserialize(deserializer)?.into_iter().map(|text| text.0).collect())
    }
}
