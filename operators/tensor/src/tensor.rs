//! A value of a whole batch, in host memory.

use arrow::buffer::{Buffer, OffsetBuffer};

use crate::{Element, Error, Result, TensorType};

/// The tensors of all rows of a batch, packed: row after row, token after token, nothing padded.
///
/// Its memory is an Arrow buffer, so a column that is aligned comes in and goes out as it is.
#[derive(Clone, Debug)]
pub struct Tensor {
    element: Element,
    dims: Vec<usize>,
    offsets: Option<OffsetBuffer<i32>>,
    rows: usize,
    data: Buffer,
}

impl Tensor {
    /// `rows` tensors of `dims` each.
    ///
    /// # Errors
    /// When `data` has not exactly as many elements, or is not aligned to them.
    pub fn fixed(element: Element, dims: impl Into<Vec<usize>>, rows: usize, data: Buffer) -> Result<Tensor> {
        Self { element, dims: dims.into(), offsets: None, rows, data }.checked(rows)
    }

    /// One tensor per row, with a leading dimension of `offsets[row + 1] - offsets[row]`.
    /// The first offset is 0.
    ///
    /// # Errors
    /// When `data` has not exactly as many elements, or is not aligned to them.
    pub fn ragged(
        element: Element,
        dims: impl Into<Vec<usize>>,
        offsets: OffsetBuffer<i32>,
        data: Buffer,
    ) -> Result<Tensor> {
        let rows = offsets.len() - 1;
        let tokens = usize::try_from(offsets[rows]).unwrap_or(usize::MAX);
        if offsets[0] != 0 {
            return Err(Error::input("ragged tensor", format!("its first offset is {}, not 0", offsets[0])));
        }
        Self { element, dims: dims.into(), offsets: Some(offsets), rows, data }.checked(tokens)
    }

    fn checked(self, tensors: usize) -> Result<Tensor> {
        let want = tensors.saturating_mul(self.width()).saturating_mul(self.element.bytes());
        if self.data.len() != want {
            let TensorShape(shape) = self.shape();
            return Err(Error::input(
                "tensor",
                format!("{shape} needs {want} bytes, its buffer has {}", self.data.len()),
            ));
        }
        if self.data.as_ptr().align_offset(self.element.bytes()) != 0 {
            return Err(Error::input("tensor", format!("its buffer is not aligned for {}", self.element)));
        }
        Ok(self)
    }

    fn shape(&self) -> TensorShape {
        TensorShape(format!("{} rows of {}{:?}", self.rows, self.element, self.dims))
    }

    /// What it is made of.
    pub fn element(&self) -> Element {
        self.element
    }

    /// The fixed dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Where each row begins, in tokens, where rows vary in length.
    pub fn offsets(&self) -> Option<&OffsetBuffer<i32>> {
        self.offsets.as_ref()
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tensors of the fixed dimensions: tokens where rows vary in length, rows elsewhere.
    pub fn tensors(&self) -> usize {
        match &self.offsets {
            Some(offsets) => offsets[offsets.len() - 1] as usize,
            None => self.rows,
        }
    }

    /// Elements of the fixed dimensions.
    pub fn width(&self) -> usize {
        self.dims.iter().product()
    }

    /// The memory.
    pub fn data(&self) -> &Buffer {
        &self.data
    }

    /// The memory as elements; `T` must be as the element says.
    ///
    /// # Errors
    /// When it is not.
    pub fn values<T: arrow::datatypes::ArrowNativeType>(&self) -> Result<&[T]> {
        if size_of::<T>() != self.element.bytes() {
            return Err(Error::input("tensor", format!("read as another type than {}", self.element)));
        }
        Ok(self.data.typed_data())
    }

    /// Whether a batch's value is of this type: element, dimensions, and with lengths or without.
    pub fn is_a(&self, wanted: &TensorType) -> bool {
        self.element == wanted.element
            && self.dims == wanted.dims
            && self.offsets.is_some() == wanted.axis.is_some()
    }
}

struct TensorShape(String);

/// The values of one batch: a graph's inputs or its outputs, in the graph's order.
#[derive(Clone, Debug)]
pub struct TensorBatch {
    /// Rows, the same in every tensor.
    pub rows: usize,
    /// One per input or output.
    pub tensors: Vec<Tensor>,
}

impl TensorBatch {
    /// Bytes of all tensors, offsets included.
    pub fn bytes(&self) -> usize {
        let offsets =
            |tensor: &Tensor| tensor.offsets.as_ref().map_or(0, |offsets| size_of_val(&offsets[..]));
        self.tensors.iter().map(|tensor| tensor.data.len() + offsets(tensor)).sum()
    }
}
