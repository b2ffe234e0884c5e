//! What top-k looks its neighbours up in.

use arrow::buffer::ScalarBuffer;

use crate::{Error, Result};

/// Vectors with ids: the rows of a matrix that queries are compared with.
///
/// A job may replace it while it runs; its width stays.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceMatrix {
    name: String,
    width: usize,
    vectors: ScalarBuffer<f32>,
    ids: ScalarBuffer<i64>,
}

impl ReferenceMatrix {
    /// `ids.len()` vectors of `width` elements, row after row.
    ///
    /// # Errors
    /// When `vectors` has not `ids.len() * width` elements, or `width` is 0.
    pub fn new(
        name: impl Into<String>,
        width: usize,
        vectors: ScalarBuffer<f32>,
        ids: ScalarBuffer<i64>,
    ) -> Result<ReferenceMatrix> {
        let name = name.into();
        if width == 0 || ids.len().checked_mul(width) != Some(vectors.len()) {
            return Err(Error::weights(
                format!("reference matrix `{name}`"),
                format!("{} ids of vectors of {width} do not make {} elements", ids.len(), vectors.len()),
            ));
        }
        Ok(ReferenceMatrix { name, width, vectors, ids })
    }

    /// Its name in the graph.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Vectors.
    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    /// Elements of a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The vectors, row after row.
    pub fn vectors(&self) -> &[f32] {
        &self.vectors
    }

    /// What an answer calls a vector.
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }
}
