//! One growing column of any type that text formats can fill.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, BooleanBufferBuilder, Date32Array, ListArray, NullBufferBuilder, PrimitiveArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use thalweg_engine::{Error, Result};

use super::string::StringColumn;
use super::{Fault, Read, Record};

/// The values of a column, null or not: a null has a default in its place.
#[derive(Debug)]
pub(crate) enum Values {
    Boolean(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    UInt8(Vec<u8>),
    UInt16(Vec<u16>),
    UInt32(Vec<u32>),
    UInt64(Vec<u64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Date(Vec<i32>),
    Time(Vec<i64>, TimeUnit),
    String(StringColumn),
    Struct(Box<Record>),
    /// Where each row's items end, after a leading 0, and the items.
    List(Vec<i32>, Box<Column>),
}

/// A growing column.
#[derive(Debug)]
pub(crate) struct Column {
    field: FieldRef,
    nulls: NullBufferBuilder,
    pub(crate) values: Values,
}

macro_rules! each_vec {
    ($values:expr, $v:ident => $body:expr, $boolean:ident => $on_boolean:expr, $string:ident => $on_string:expr,
     $record:ident => $on_struct:expr, ($offsets:ident, $items:ident) => $on_list:expr) => {
        match $values {
            Values::Boolean($boolean) => $on_boolean,
            Values::Int8($v) => $body,
            Values::Int16($v) => $body,
            Values::Int32($v) => $body,
            Values::Int64($v) => $body,
            Values::UInt8($v) => $body,
            Values::UInt16($v) => $body,
            Values::UInt32($v) => $body,
            Values::UInt64($v) => $body,
            Values::Float32($v) => $body,
            Values::Float64($v) => $body,
            Values::Date($v) => $body,
            Values::Time($v, _) => $body,
            Values::String($string) => $on_string,
            Values::Struct($record) => $on_struct,
            Values::List($offsets, $items) => $on_list,
        }
    };
}

impl Column {
    /// An empty column.
    ///
    /// # Errors
    /// A user error that names the column when text formats cannot fill its type.
    pub(crate) fn new(field: &FieldRef) -> Result<Column> {
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::UInt8 => Values::UInt8(Vec::new()),
            DataType::UInt16 => Values::UInt16(Vec::new()),
            DataType::UInt32 => Values::UInt32(Vec::new()),
            DataType::UInt64 => Values::UInt64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Timestamp(unit, _) => Values::Time(Vec::new(), *unit),
            DataType::Utf8View => Values::String(StringColumn::default()),
            DataType::Struct(fields) => Values::Struct(Box::new(Record::new(fields)?)),
            DataType::List(item) => Values::List(vec![0], Box::new(Column::new(item)?)),
            other => {
                let name = field.name();
                return Err(Error::user(format!(
                    "column {name:?} has type {other}, which text formats do not hold"
                )));
            }
        };
        Ok(Column { field: Arc::clone(field), nulls: NullBufferBuilder::new(0), values })
    }

    pub(crate) fn field(&self) -> &Field {
        &self.field
    }

    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    /// Says that the value which was just appended to `values` is not null.
    #[inline]
    pub(crate) fn filled(&mut self) {
        self.nulls.append_non_null();
    }

    /// Appends a null, if the column takes one.
    pub(crate) fn push_null(&mut self, why_not: &str) -> Read<()> {
        if !self.field.is_nullable() {
            return Err(Fault::new(why_not));
        }
        self.push_masked();
        Ok(())
    }

    /// Appends a null whether or not the column takes one: beneath a null struct.
    pub(crate) fn push_masked(&mut self) {
        each_vec!(&mut self.values,
            values => values.push(Default::default()),
            values => values.append(false),
            values => values.push(""),
            record => record.push_masked(),
            (ends, items) => ends.push(items.len() as i32));
        self.nulls.append_null();
    }

    /// Appends a null, or anything where the column takes none: somebody else fills it.
    pub(crate) fn push_blank(&mut self) {
        if self.field.is_nullable() {
            return self.push_masked();
        }
        each_vec!(&mut self.values,
            values => values.push(Default::default()),
            values => values.append(false),
            values => values.push(""),
            record => record.push_blank(),
            (ends, items) => ends.push(items.len() as i32));
        self.nulls.append_non_null();
    }

    /// Cuts back to `rows` rows, also half a value behind them.
    pub(crate) fn truncate(&mut self, rows: usize) {
        each_vec!(&mut self.values,
        values => values.truncate(rows),
        values => values.truncate(rows),
        values => values.truncate(rows),
        record => record.truncate(rows),
        (ends, items) => {
            ends.truncate(rows + 1);
            items.truncate(ends.last().map_or(0, |end| *end as usize));
        });
        self.nulls.truncate(rows);
    }

    /// Takes the rows out.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        let rows = self.len();
        let nulls = self.nulls.finish();
        Ok(match &mut self.values {
            Values::Boolean(values) => {
                values.truncate(rows);
                Arc::new(BooleanArray::new(values.finish(), nulls))
            }
            Values::Int8(values) => primitive::<Int8Type>(values, nulls),
            Values::Int16(values) => primitive::<Int16Type>(values, nulls),
            Values::Int32(values) => primitive::<Int32Type>(values, nulls),
            Values::Int64(values) => primitive::<Int64Type>(values, nulls),
            Values::UInt8(values) => primitive::<UInt8Type>(values, nulls),
            Values::UInt16(values) => primitive::<UInt16Type>(values, nulls),
            Values::UInt32(values) => primitive::<UInt32Type>(values, nulls),
            Values::UInt64(values) => primitive::<UInt64Type>(values, nulls),
            Values::Float32(values) => primitive::<Float32Type>(values, nulls),
            Values::Float64(values) => primitive::<Float64Type>(values, nulls),
            Values::Date(values) => Arc::new(Date32Array::new(take(values), nulls)),
            Values::Time(values, unit) => {
                let values = take(values);
                let typed = self.field.data_type().clone();
                match unit {
                    TimeUnit::Second => timestamp::<TimestampSecondType>(values, nulls, typed),
                    TimeUnit::Millisecond => timestamp::<TimestampMillisecondType>(values, nulls, typed),
                    TimeUnit::Microsecond => timestamp::<TimestampMicrosecondType>(values, nulls, typed),
                    TimeUnit::Nanosecond => timestamp::<TimestampNanosecondType>(values, nulls, typed),
                }
            }
            Values::String(values) => values.finish(nulls),
            Values::Struct(record) => record.finish_struct(rows, nulls)?,
            Values::List(ends, items) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])));
                Arc::new(ListArray::try_new(
                    Arc::new(items.field().clone()),
                    offsets,
                    items.finish()?,
                    nulls,
                )?)
            }
        })
    }
}

/// Takes the values and leaves room for as many.
fn take<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    let rows = values.len();
    ScalarBuffer::from(std::mem::replace(values, Vec::with_capacity(rows)))
}

fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(take(values), nulls))
}

fn timestamp<T: ArrowPrimitiveType<Native = i64>>(
    values: ScalarBuffer<i64>,
    nulls: Option<NullBuffer>,
    typed: DataType,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(typed))
}
