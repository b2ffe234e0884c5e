//! A column's memory: where each row's elements lie, as bytes.

use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait};
use arrow::buffer::{Buffer, MutableBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Float16Type, Float32Type, Int8Type, Int32Type, Int64Type};

use crate::{Element, Error, Result};

/// A column of numbers, or of lists of them.
pub struct Packed {
    /// What it is made of.
    pub element: Element,
    pub data: Buffer,
    pub ends: Ends,
    /// Rows that are null.
    pub nulls: Option<NullBuffer>,
    /// Elements that are null.
    pub element_nulls: Option<NullBuffer>,
}

/// Where rows end, in elements.
pub enum Ends {
    /// As many elements in every row.
    Fixed(usize),
    /// From the first offset, which need not be 0.
    Offsets(OffsetBuffer<i32>),
    /// The same of `LargeList`.
    LargeOffsets(OffsetBuffer<i64>),
}

impl Packed {
    /// A plain column, a `FixedSizeList`, a `List` or a `LargeList` of a number.
    pub fn of(column: &ArrayRef, element: Element) -> Result<Packed> {
        let (values, ends) = match column.data_type() {
            DataType::FixedSizeList(_, size) => {
                (column.as_fixed_size_list().values().clone(), Ends::Fixed(*size as usize))
            }
            DataType::List(_) => {
                let (values, offsets) = list(column.as_list::<i32>());
                (values, Ends::Offsets(offsets))
            }
            DataType::LargeList(_) => {
                let (values, offsets) = list(column.as_list::<i64>());
                (values, Ends::LargeOffsets(offsets))
            }
            _ => (column.clone(), Ends::Fixed(1)),
        };
        let is_plain = matches!(column.data_type(), plain if *plain == super::data_type(element));
        let element_nulls = if is_plain { None } else { nulls(&values) };
        Ok(Packed { element, data: numbers(&values, element)?, ends, nulls: nulls(column), element_nulls })
    }

    /// A row's elements.
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        match &self.ends {
            Ends::Fixed(width) => row * width..(row + 1) * width,
            Ends::Offsets(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Ends::LargeOffsets(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
        }
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    pub fn has_null_element(&self, row: usize) -> bool {
        let in_row = |nulls: &NullBuffer| self.range(row).any(|element| nulls.is_null(element));
        self.element_nulls.as_ref().is_some_and(in_row)
    }

    /// The elements of rows `0..rows`, without a copy.
    pub fn all(&self, rows: usize) -> Buffer {
        let bytes = self.element.bytes();
        let (start, end) = match rows {
            0 => (0, 0),
            rows => (self.range(0).start, self.range(rows - 1).end),
        };
        self.data.slice_with_length(start * bytes, (end - start) * bytes)
    }

    /// The elements of some rows, copied together; neighbours in one go.
    pub fn some(&self, rows: &[usize]) -> Buffer {
        let bytes = self.element.bytes();
        let length: usize = rows.iter().map(|&row| self.range(row).len() * bytes).sum();
        let mut packed = MutableBuffer::with_capacity(length);
        let mut copy = |range: std::ops::Range<usize>| {
            packed.extend_from_slice(&self.data[range.start * bytes..range.end * bytes]);
        };
        let mut run = 0..0;
        for &row in rows {
            let range = self.range(row);
            if range.start == run.end {
                run.end = range.end;
            } else {
                copy(std::mem::replace(&mut run, range));
            }
        }
        copy(run);
        packed.into()
    }

    /// Offsets of some rows, from 0.
    pub fn offsets(&self, rows: Option<&[usize]>, all: usize) -> Result<OffsetBuffer<i32>> {
        if let (Ends::Offsets(offsets), None) = (&self.ends, rows)
            && offsets[0] == 0
        {
            return Ok(offsets.clone());
        }
        let mut offsets = Vec::with_capacity(all + 1);
        let mut end = 0usize;
        offsets.push(0);
        let mut add = |row: usize| {
            end += self.range(row).len();
            offsets.push(i32::try_from(end).map_err(|_| Error::input("batch", "more than 2^31 tokens"))?);
            Ok(())
        };
        match rows {
            Some(rows) => rows.iter().try_for_each(|&row| add(row))?,
            None => (0..all).try_for_each(add)?,
        }
        Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
    }

    /// The ids of a row of `i32`.
    pub fn ids(&self, row: usize) -> &[i32] {
        &self.data.typed_data()[self.range(row)]
    }
}

fn nulls(array: &ArrayRef) -> Option<NullBuffer> {
    array.nulls().filter(|nulls| nulls.null_count() > 0).cloned()
}

fn list<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> (ArrayRef, OffsetBuffer<O>) {
    (list.values().clone(), list.offsets().clone())
}

fn numbers(values: &ArrayRef, element: Element) -> Result<Buffer> {
    let buffer = match element {
        Element::F32 => values.as_primitive_opt::<Float32Type>().map(|array| array.values().inner()),
        Element::F16 => values.as_primitive_opt::<Float16Type>().map(|array| array.values().inner()),
        Element::I8 => values.as_primitive_opt::<Int8Type>().map(|array| array.values().inner()),
        Element::I32 => values.as_primitive_opt::<Int32Type>().map(|array| array.values().inner()),
        Element::I64 => values.as_primitive_opt::<Int64Type>().map(|array| array.values().inner()),
    };
    match buffer {
        Some(buffer) => Ok(buffer.clone()),
        None => Err(Error::input("column", format!("holds {}, not {element}", values.data_type()))),
    }
}
