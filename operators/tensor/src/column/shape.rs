//! The extension type `arrow.fixed_shape_tensor`: a shape in a field's metadata
//! (<https://arrow.apache.org/docs/format/CanonicalExtensions.html#fixed-shape-tensor>).

use std::collections::HashMap;

use arrow::datatypes::Field;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const NAME_KEY: &str = "ARROW:extension:name";
const METADATA_KEY: &str = "ARROW:extension:metadata";
const NAME: &str = "arrow.fixed_shape_tensor";

#[derive(Serialize, Deserialize)]
struct Shape {
    shape: Vec<usize>,
    #[serde(default, skip_serializing)]
    permutation: Option<Vec<usize>>,
}

/// The shape that a field says, if it says one.
///
/// # Errors
/// When it cannot be read, or its elements do not lie in row-major order.
pub fn read(field: &Field) -> Result<Option<Vec<usize>>> {
    if field.metadata().get(NAME_KEY).is_none_or(|name| name != NAME) {
        return Ok(None);
    }
    let text = field.metadata().get(METADATA_KEY).map_or("", String::as_str);
    let refuse = |reason: String| Error::input(field.name(), format!("{NAME}: {reason}"));
    let shape: Shape =
        serde_json::from_str(text).map_err(|error| refuse(format!("metadata `{text}`: {error}")))?;
    match shape.permutation {
        Some(order) if !order.iter().copied().eq(0..order.len()) => {
            Err(refuse(format!("its elements are permuted by {order:?}")))
        }
        _ => Ok(Some(shape.shape)),
    }
}

/// Metadata that says this shape.
pub fn metadata(dims: &[usize]) -> HashMap<String, String> {
    let shape = Shape { shape: dims.to_vec(), permutation: None };
    // A list of numbers is JSON as Rust writes it.
    let text = serde_json::to_string(&shape).unwrap_or_else(|_| format!("{{\"shape\":{dims:?}}}"));
    HashMap::from([(NAME_KEY.to_owned(), NAME.to_owned()), (METADATA_KEY.to_owned(), text)])
}
