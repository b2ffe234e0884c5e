//! A graph's outputs as columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, ListArray, PrimitiveArray};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type, Int8Type, Int32Type, Int64Type, Schema,
};

use super::{data_type, shape};
use crate::{Element, Error, Graph, Result, Tensor, TensorBatch, TensorType};

/// The field of an output: a plain column for a scalar, a `FixedSizeList` for a vector, one with a
/// shape in its metadata for rank 2 and more, a list of those where rows vary in length. Not null.
pub fn output_field(name: &str, ty: &TensorType) -> Field {
    let dims = &ty.dims;
    let element = data_type(ty.element);
    let fixed = |name: &str| match dims.as_slice() {
        [] => Field::new(name, element, false),
        _ => {
            let size = i32::try_from(ty.width()).unwrap_or(i32::MAX);
            let list = DataType::FixedSizeList(item(element), size);
            let metadata = if dims.len() > 1 { shape::metadata(dims) } else { Default::default() };
            Field::new(name, list, false).with_metadata(metadata)
        }
    };
    match ty.axis {
        None => fixed(name),
        Some(_) => Field::new(name, DataType::List(Arc::new(fixed("item"))), false),
    }
}

fn item(element: DataType) -> Arc<Field> {
    Arc::new(Field::new("item", element, false))
}

/// The fields of all outputs.
pub fn output_schema(graph: &Graph) -> Schema {
    let field = |(name, value): &(Arc<str>, crate::op::ValueId)| output_field(name, graph.value(*value));
    Schema::new(graph.outputs().iter().map(field).collect::<Vec<Field>>())
}

/// A batch of a graph's outputs as columns of [`output_schema`], without a copy.
///
/// # Errors
/// When the batch is not of the graph's output types, or a width is beyond `i32::MAX`.
pub fn write_columns(graph: &Graph, batch: &TensorBatch) -> Result<Vec<ArrayRef>> {
    if batch.tensors.len() != graph.outputs().len() {
        let (has, wants) = (batch.tensors.len(), graph.outputs().len());
        return Err(Error::input("outputs", format!("{has} tensors for {wants} outputs")));
    }
    let column = |((name, value), tensor): (&(Arc<str>, crate::op::ValueId), &Tensor)| {
        let ty = graph.value(*value);
        match tensor.is_a(ty) && tensor.rows() == batch.rows {
            true => write(name, ty, tensor),
            false => Err(Error::input(&**name, format!("is not {} rows of {ty}", batch.rows))),
        }
    };
    graph.outputs().iter().zip(&batch.tensors).map(column).collect()
}

fn write(name: &str, ty: &TensorType, tensor: &Tensor) -> Result<ArrayRef> {
    let failed = |error: arrow::error::ArrowError| Error::input(name, error.to_string());
    let numbers = numbers(tensor.element(), tensor.data());
    let fixed: ArrayRef = match ty.dims.as_slice() {
        [] => numbers,
        _ => {
            let size = i32::try_from(ty.width())
                .map_err(|_| Error::input(name, format!("{ty} is too wide for a column")))?;
            let item = item(data_type(ty.element));
            Arc::new(FixedSizeListArray::try_new(item, size, numbers, None).map_err(failed)?)
        }
    };
    match (tensor.offsets(), output_field(name, ty).data_type()) {
        (Some(offsets), DataType::List(item)) => {
            Ok(Arc::new(ListArray::try_new(item.clone(), offsets.clone(), fixed, None).map_err(failed)?))
        }
        _ => Ok(fixed),
    }
}

fn numbers(element: Element, data: &Buffer) -> ArrayRef {
    match element {
        Element::F32 => primitive::<Float32Type>(data),
        Element::F16 => primitive::<Float16Type>(data),
        Element::I8 => primitive::<Int8Type>(data),
        Element::I32 => primitive::<Int32Type>(data),
        Element::I64 => primitive::<Int64Type>(data),
    }
}

/// A tensor's memory is as aligned as its element wants it.
fn primitive<T: ArrowPrimitiveType>(data: &Buffer) -> ArrayRef {
    let length = data.len() / size_of::<T::Native>();
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::new(data.clone(), 0, length), None))
}
