//! What top-k looks its neighbours up in.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Int64Type};
use bytes::Bytes;
use half::f16;
use safetensors::tensor::Dtype;

use crate::op::Metric;
use crate::reference_terms::{ReferenceTerms, Vectors};
use crate::safetensors_file::{FileTensor, SafetensorsFile};
use crate::{Error, Result};

/// Vectors with ids: the rows of a matrix that queries are compared with.
///
/// A job may replace it while it runs; its width stays.
#[derive(Clone, Debug)]
pub struct ReferenceMatrix {
    name: String,
    width: usize,
    vectors: ScalarBuffer<f32>,
    ids: ScalarBuffer<i64>,
    /// What the CPU's look-ups know of the vectors, once for all plans.
    terms: Arc<ReferenceTerms>,
}

/// The same vectors under the same names.
impl PartialEq for ReferenceMatrix {
    fn eq(&self, other: &ReferenceMatrix) -> bool {
        let ReferenceMatrix { name, width, vectors, ids, terms: _ } = self;
        *name == other.name && *width == other.width && *vectors == other.vectors && *ids == other.ids
    }
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
        Ok(ReferenceMatrix { name, width, vectors, ids, terms: Arc::default() })
    }

    /// Maps a safetensors file with a tensor `vectors` (`[n, d]`, `f32` or `f16`) and perhaps one
    /// `ids` (`[n]`, `i64`); without it the ids are 0 to n.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or has no such tensors; the error names file and tensor.
    pub fn open(name: impl Into<String>, path: impl AsRef<Path>) -> Result<ReferenceMatrix> {
        Self::from_file(name.into(), &SafetensorsFile::open(path.as_ref())?)
    }

    /// The same of a file that is in memory; `file` is its name for errors.
    ///
    /// # Errors
    /// As [`ReferenceMatrix::open`].
    pub fn from_bytes(name: impl Into<String>, file: &str, bytes: Bytes) -> Result<ReferenceMatrix> {
        Self::from_file(name.into(), &SafetensorsFile::from_bytes(file, bytes))
    }

    fn from_file(name: String, file: &SafetensorsFile) -> Result<ReferenceMatrix> {
        let tensors = file.tensors()?;
        let find = |wanted: &str| tensors.iter().find(|tensor| tensor.name == wanted);
        let refuse = |tensor: &str, reason: String| {
            Error::weights(format!("tensor `{tensor}` of {}", file.name()), reason)
        };
        let Some(vectors) = find("vectors") else {
            return Err(refuse("vectors", "is not there".to_owned()));
        };
        let [rows, width] = vectors.dims[..] else {
            return Err(refuse("vectors", format!("has shape {:?}, not [n, d]", vectors.dims)));
        };
        let numbers = match vectors.dtype {
            Dtype::F32 => aligned(&vectors.data),
            Dtype::F16 => widened(vectors),
            other => return Err(refuse("vectors", format!("is of {other:?}, not of f32 or f16"))),
        };
        let ids = match find("ids") {
            None => (0..rows as i64).collect(),
            Some(ids) if ids.dtype == Dtype::I64 && ids.dims == [rows] => aligned(&ids.data),
            Some(ids) => {
                let reason = format!("is {:?}{:?}, not I64[{rows}]", ids.dtype, ids.dims);
                return Err(refuse("ids", reason));
            }
        };
        ReferenceMatrix::new(name, width, numbers, ids)
    }

    /// From a column of vectors (`FixedSizeList` of `f32` or `f16`) and perhaps one of ids (`i64`);
    /// without it the ids are 0 to n.
    ///
    /// # Errors
    /// When a column is of another type, has nulls, or is not as long as the other.
    pub fn from_columns(
        name: impl Into<String>,
        vectors: &dyn Array,
        ids: Option<&dyn Array>,
    ) -> Result<ReferenceMatrix> {
        let name = name.into();
        let refuse = |reason: String| Error::weights(format!("reference matrix `{name}`"), reason);
        let DataType::FixedSizeList(_, width) = vectors.data_type() else {
            let reason = format!("its vectors are of type {}, not FixedSizeList", vectors.data_type());
            return Err(refuse(reason));
        };
        let values = vectors.as_fixed_size_list().values();
        if vectors.null_count() > 0 || values.null_count() > 0 {
            return Err(refuse("its vectors have nulls".to_owned()));
        }
        let numbers = if let Some(numbers) = values.as_primitive_opt::<Float32Type>() {
            numbers.values().clone()
        } else if let Some(numbers) = values.as_primitive_opt::<Float16Type>() {
            numbers.values().iter().map(|number| number.to_f32()).collect()
        } else {
            return Err(refuse(format!("its vectors are of {}, not of f32 or f16", values.data_type())));
        };
        let ids = match ids {
            None => (0..vectors.len() as i64).collect(),
            Some(ids) if ids.null_count() > 0 => return Err(refuse("its ids have nulls".to_owned())),
            Some(ids) => match ids.as_primitive_opt::<Int64Type>() {
                Some(ids) => ids.values().clone(),
                None => return Err(refuse(format!("its ids are of {}, not of i64", ids.data_type()))),
            },
        };
        let width = *width as usize;
        ReferenceMatrix::new(name, width, numbers, ids)
    }

    /// Computes, on the caller's thread, what the CPU needs to know of the vectors to compare by these
    /// metrics ([`Graph::metrics_of`](crate::Graph::metrics_of)). Who loads a matrix beside a running
    /// job calls it there; otherwise the first plan that is given the matrix does. All plans share it.
    pub fn prepare(&self, metrics: &[Metric]) {
        for metric in metrics {
            self.terms.of(self.as_rows(), *metric);
        }
    }

    pub(crate) fn as_rows(&self) -> Vectors<'_> {
        Vectors { elements: &self.vectors, width: self.width }
    }

    pub(crate) fn terms(&self) -> &ReferenceTerms {
        &self.terms
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

/// A file's memory where it is aligned, a copy where it is not.
fn aligned<T: arrow::datatypes::ArrowNativeType>(data: &Buffer) -> ScalarBuffer<T> {
    match data.as_ptr().align_offset(align_of::<T>()) {
        0 => ScalarBuffer::from(data.clone()),
        _ => ScalarBuffer::from(Buffer::from_slice_ref(data.as_slice())),
    }
}

fn widened(tensor: &FileTensor) -> ScalarBuffer<f32> {
    tensor.data.chunks_exact(2).map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()).collect()
}
