//! Reference matrices in safetensors files: `vectors` (`f32` or `f16`, `[rows, width]`) and, if
//! answers are to call them otherwise than by row, `ids` (`i64`, `[rows]`).

use std::path::Path;

use arrow::buffer::ScalarBuffer;
use half::f16;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Error, ReferenceMatrix, Result};

impl ReferenceMatrix {
    /// Reads a matrix.
    ///
    /// # Errors
    /// When the file cannot be read, or does not hold such tensors.
    pub fn read(name: impl Into<String>, path: &Path) -> Result<ReferenceMatrix> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|source| Error::Io { what: shown.clone(), source })?;
        let wrong = |reason: String| Error::weights(shown.clone(), reason);
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| wrong(error.to_string()))?;
        let vectors = tensors.tensor("vectors").map_err(|_| wrong("has no tensor `vectors`".into()))?;
        let [rows, width] = *vectors.shape() else {
            return Err(wrong(format!("`vectors` has shape {:?}, not [rows, width]", vectors.shape())));
        };
        let values: Vec<f32> = match vectors.dtype() {
            Dtype::F32 => {
                vectors.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Dtype::F16 => {
                vectors.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            other => return Err(wrong(format!("`vectors` is of {other:?}, not f32 or f16"))),
        };
        let ids: Vec<i64> = match tensors.tensor("ids") {
            Err(_) => (0..rows as i64).collect(),
            Ok(ids) if ids.dtype() == Dtype::I64 && *ids.shape() == [rows] => {
                let value = |b: &[u8]| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
                ids.data().chunks_exact(8).map(value).collect()
            }
            Ok(ids) => {
                return Err(wrong(format!("`ids` is {:?}{:?}, not I64[{rows}]", ids.dtype(), ids.shape())));
            }
        };
        ReferenceMatrix::new(name, width, ScalarBuffer::from(values), ScalarBuffer::from(ids))
    }

    /// Writes it as [`ReferenceMatrix::read`] reads it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let shown = path.display().to_string();
        let wrong = |error: safetensors::SafeTensorError| Error::weights(shown.clone(), error.to_string());
        let vectors: Vec<u8> = self.vectors().iter().flat_map(|value| value.to_le_bytes()).collect();
        let ids: Vec<u8> = self.ids().iter().flat_map(|id| id.to_le_bytes()).collect();
        let vectors =
            TensorView::new(Dtype::F32, vec![self.rows(), self.width()], &vectors).map_err(wrong)?;
        let ids = TensorView::new(Dtype::I64, vec![self.rows()], &ids).map_err(wrong)?;
        let bytes = safetensors::serialize([("vectors", vectors), ("ids", ids)], None).map_err(wrong)?;
        // Whole or not at all: who watches the file must not read half of it.
        let beside = path.with_extension("writing");
        let written = std::fs::write(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
        written.map_err(|source| Error::Io { what: shown, source })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_matrix_is_read_as_it_was_written_and_a_wrong_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("reference.safetensors");
        let matrix =
            ReferenceMatrix::new("topics", 2, vec![1.0, 2.0, 3.0, 4.5].into(), vec![7, -9].into()).unwrap();
        matrix.write(&path).unwrap();
        assert_eq!(ReferenceMatrix::read("topics", &path).unwrap(), matrix);
        std::fs::write(&path, b"nonsense").unwrap();
        let error = ReferenceMatrix::read("topics", &path).unwrap_err().to_string();
        assert!(error.contains("reference.safetensors"), "{error}");
    }
}
