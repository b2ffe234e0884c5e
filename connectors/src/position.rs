//! How a small value becomes bytes that a checkpoint keeps: one byte for the version, then JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thalweg_engine::{Error, Result};

/// The only version so far.
const VERSION: u8 = 1;

/// The bytes of `value`.
///
/// # Errors
/// An internal error when it has no JSON form.
pub(crate) fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = vec![VERSION];
    let written = serde_json::to_writer(&mut bytes, value);
    written.map_err(|error| Error::internal("a position has no JSON form").caused_by(error))?;
    Ok(bytes)
}

/// What [`encode`] was given; `what` is for the error.
///
/// # Errors
/// A permanent error when the version is not known or the bytes are damaged.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    match bytes.split_first() {
        Some((&VERSION, json)) => serde_json::from_slice(json)
            .map_err(|error| Error::external(format!("{what} cannot be read")).permanent().caused_by(error)),
        Some((version, _)) => {
            Err(Error::user(format!("{what} has version {version}; this build knows version {VERSION}")))
        }
        None => Err(Error::external(format!("{what} is empty")).permanent()),
    }
}
