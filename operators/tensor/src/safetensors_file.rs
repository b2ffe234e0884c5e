//! Safetensors files: mapped or held in memory, and read without a copy.
//!
//! A file that is mapped must not be changed while it is; who replaces weights writes a new file and
//! renames it.

use std::fs::File;
use std::path::Path;

use arrow::buffer::Buffer;
use bytes::Bytes;
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use crate::{Error, Result};

/// The bytes of one file, with its name for errors.
#[derive(Clone, Debug)]
pub(crate) struct SafetensorsFile {
    name: String,
    data: Buffer,
}

/// A tensor as it stands in a file.
#[derive(Clone, Debug)]
pub(crate) struct FileTensor {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) dims: Vec<usize>,
    /// Part of the file's memory; may be unaligned.
    pub(crate) data: Buffer,
}

impl SafetensorsFile {
    /// Maps a file.
    pub(crate) fn open(path: &Path) -> Result<SafetensorsFile> {
        let name = path.display().to_string();
        let io = |source| Error::Io { what: name.clone(), source };
        let file = File::open(path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            return Err(Error::weights(name, "is empty"));
        }
        // SAFETY: the mapping is private and read-only. That nobody shortens the file while it is
        // mapped is the rule of this module.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
        Ok(SafetensorsFile { name, data: Buffer::from(Bytes::from_owner(map)) })
    }

    /// A file that was fetched already; its name is for errors.
    pub(crate) fn from_bytes(name: &str, bytes: Bytes) -> SafetensorsFile {
        SafetensorsFile { name: name.to_owned(), data: Buffer::from(bytes) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// All tensors, by name.
    ///
    /// # Errors
    /// When it is no safetensors file, is damaged, or ends too early.
    pub(crate) fn tensors(&self) -> Result<Vec<FileTensor>> {
        let bytes = self.data.as_slice();
        let parsed = SafeTensors::deserialize(bytes).map_err(|error| {
            let reason = format!("is no whole safetensors file ({} bytes): {error}", bytes.len());
            Error::weights(&self.name, reason)
        })?;
        let start = bytes.as_ptr() as usize;
        let mut tensors: Vec<FileTensor> = parsed
            .iter()
            .map(|(name, view)| FileTensor {
                name: name.to_owned(),
                dtype: view.dtype(),
                dims: view.shape().to_vec(),
                data: self.data.slice_with_length(
                    (view.data().as_ptr() as usize).saturating_sub(start),
                    view.data().len(),
                ),
            })
            .collect();
        tensors.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(tensors)
    }
}
