//! Arrow columns in, tensors out; tensors in, Arrow columns out.
//!
//! A column is taken as it lies in memory wherever its rows are all good; where some are not, they
//! are left out with their reasons, and the others are packed anew. What a type must be is checked
//! once, when a job is built; what a row must be, batch by batch.

mod packed;
mod read;
mod shape;
mod write;

pub use read::{ColumnReader, Columns, Rejected};
pub use write::{output_field, output_schema, write_columns};

use arrow::datatypes::{DataType, Field, Schema};

use crate::graph::{Input, Source};
use crate::{Element, Error, Graph, Result, TensorType};

/// Whether the columns that a graph reads are there, and of types that it can read.
///
/// A tensor of shape `[384]` is a `FixedSizeList` of 384, or a list whose rows are checked one by
/// one; a scalar is a plain column; a shape of rank 2 or more is a flat `FixedSizeList`, which may
/// say its shape as the extension type `arrow.fixed_shape_tensor` does. Token ids are lists of `i32`.
///
/// # Errors
/// Names the column, its type, and what it should be.
pub fn check_schema(graph: &Graph, schema: &Schema) -> Result<()> {
    graph.inputs().iter().try_for_each(|input| check_column(graph, input, schema).map(|_| ()))
}

/// The column's place.
fn check_column(graph: &Graph, input: &Input, schema: &Schema) -> Result<usize> {
    let ty = graph.value(input.value);
    let wanted = wanted(input, ty);
    let Some((index, field)) = schema.column_with_name(&input.name) else {
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let reason = format!("there is no such column among {}; wanted {wanted}", known.join(", "));
        return Err(Error::input(&*input.name, reason));
    };
    let is_right = match &input.source {
        Source::Text { .. } => {
            matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        }
        Source::Tokens => match field.data_type() {
            DataType::List(item) | DataType::LargeList(item) => item.data_type() == &DataType::Int32,
            _ => false,
        },
        Source::Tensor => is_tensor(field, ty)?,
    };
    match is_right {
        true => Ok(index),
        false => Err(Error::input(
            &*input.name,
            format!("its column is of type {}, wanted {wanted}", field.data_type()),
        )),
    }
}

fn is_tensor(field: &Field, ty: &TensorType) -> Result<bool> {
    let element = data_type(ty.element);
    let width = ty.width();
    Ok(match field.data_type() {
        plain if ty.dims.is_empty() => *plain == element,
        DataType::FixedSizeList(item, size) => {
            let is_flat = *item.data_type() == element && usize::try_from(*size) == Ok(width);
            let shape = shape::read(field)?;
            is_flat && shape.is_none_or(|shape| shape == ty.dims)
        }
        DataType::List(item) | DataType::LargeList(item) => *item.data_type() == element,
        _ => false,
    })
}

fn wanted(input: &Input, ty: &TensorType) -> String {
    let element = data_type(ty.element);
    match &input.source {
        Source::Text { .. } => "Utf8, LargeUtf8 or Utf8View".to_owned(),
        Source::Tokens => "List(Int32) or LargeList(Int32)".to_owned(),
        Source::Tensor if ty.dims.is_empty() => format!("{element} for {ty}"),
        Source::Tensor => {
            format!("FixedSizeList({} x {element}) or List({element}) for {ty}", ty.width())
        }
    }
}

/// How Arrow calls an element.
fn data_type(element: Element) -> DataType {
    match element {
        Element::F32 => DataType::Float32,
        Element::F16 => DataType::Float16,
        Element::I8 => DataType::Int8,
        Element::I32 => DataType::Int32,
        Element::I64 => DataType::Int64,
    }
}
