//! Writing reference matrices to safetensors files.

use std::path::Path;

use safetensors::{Dtype, tensor::TensorView};

use crate::{Error, ReferenceMatrix, Result};

impl ReferenceMatrix {
    /// Writes it as [`ReferenceMatrix::open`] reads it, with its ids.
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
        assert_eq!(ReferenceMatrix::open("topics", &path).unwrap(), matrix);
        std::fs::write(&path, b"nonsense").unwrap();
        let error = ReferenceMatrix::open("topics", &path).unwrap_err().to_string();
        assert!(error.contains("reference.safetensors"), "{error}");
    }
}
