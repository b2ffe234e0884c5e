//! Values of any number-like type as words whose unsigned order is the values' order, so that one
//! loop serves `min`, `max`, `first` and `last` over all of them.

use arrow::array::types::{Float64Type, Int64Type, UInt64Type};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::sync::Arc;
use thalweg_engine::{Error, Result};

const SIGN: u64 = 1 << 63;

/// How a type becomes a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Signed,
    Unsigned,
    Float,
}

impl Class {
    /// The class of a type; `None` when its values are not numbers, times or booleans.
    pub(super) fn of(data_type: &DataType) -> Option<Class> {
        match data_type {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Some(Class::Signed),
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => Some(Class::Signed),
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Some(Class::Unsigned),
            DataType::Boolean => Some(Class::Unsigned),
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Some(Class::Float),
            _ => None,
        }
    }

    /// The 64-bit type of the class.
    pub(super) fn wide(self) -> DataType {
        match self {
            Class::Signed => DataType::Int64,
            Class::Unsigned => DataType::UInt64,
            Class::Float => DataType::Float64,
        }
    }

    /// A column in the class's 64-bit type.
    pub(super) fn widen(self, values: &ArrayRef) -> Result<ArrayRef> {
        let values = match values.data_type() {
            DataType::Date32 => cast(values, &DataType::Int32)?,
            _ => values.clone(),
        };
        if *values.data_type() == self.wide() { Ok(values) } else { Ok(cast(&values, &self.wide())?) }
    }
}

/// The words of a column; what is under a null is anything.
pub(super) fn to_words(class: Class, values: &ArrayRef) -> Result<Vec<u64>> {
    let wide = class.widen(values)?;
    Ok(match class {
        Class::Signed => wide.as_primitive::<Int64Type>().values().iter().map(|&v| v as u64 ^ SIGN).collect(),
        Class::Unsigned => wide.as_primitive::<UInt64Type>().values().to_vec(),
        Class::Float => wide.as_primitive::<Float64Type>().values().iter().map(|&v| float_word(v)).collect(),
    })
}

/// The column of words.
pub(super) fn from_words(data_type: &DataType, words: Vec<u64>, valid: Vec<bool>) -> Result<ArrayRef> {
    let class = Class::of(data_type)
        .ok_or_else(|| Error::internal(format!("values of {data_type} are not kept as words")))?;
    let nulls = valid.contains(&false).then(|| NullBuffer::from(valid));
    let wide: ArrayRef = match class {
        Class::Signed => {
            let values: Vec<i64> = words.into_iter().map(|word| (word ^ SIGN) as i64).collect();
            Arc::new(Int64Array::new(values.into(), nulls))
        }
        Class::Unsigned => Arc::new(UInt64Array::new(words.into(), nulls)),
        Class::Float => {
            let values: Vec<f64> = words.into_iter().map(word_float).collect();
            Arc::new(Float64Array::new(values.into(), nulls))
        }
    };
    let wide = match data_type {
        DataType::Date32 => cast(&wide, &DataType::Int32)?,
        _ => wide,
    };
    if wide.data_type() == data_type { Ok(wide) } else { Ok(cast(&wide, data_type)?) }
}

/// IEEE 754's total order: negative numbers have all bits flipped, the others the sign bit. All
/// `NaN`s are one, the greatest.
fn float_word(value: f64) -> u64 {
    let bits = if value.is_nan() { f64::NAN.to_bits() & !SIGN } else { value.to_bits() };
    if bits & SIGN == 0 { bits ^ SIGN } else { !bits }
}

fn word_float(word: u64) -> f64 {
    f64::from_bits(if word & SIGN == 0 { !word } else { word ^ SIGN })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Date32Array, Float32Array, Int8Array, TimestampMicrosecondArray};

    fn round_trip(values: ArrayRef) {
        let class = Class::of(values.data_type()).unwrap();
        let words = to_words(class, &values).unwrap();
        let valid = (0..values.len()).map(|row| values.is_valid(row)).collect();
        assert!(words.is_sorted(), "{values:?} {words:?}");
        assert_eq!(&from_words(values.data_type(), words, valid).unwrap(), &values);
    }

    #[test]
    fn ascending_values_of_every_class_are_ascending_words_and_come_back() {
        round_trip(Arc::new(Int8Array::from(vec![i8::MIN, -1, 0, 1, i8::MAX])));
        round_trip(Arc::new(Int64Array::from(vec![i64::MIN, -1, 0, 1, i64::MAX])));
        round_trip(Arc::new(UInt64Array::from(vec![0, 1, u64::MAX])));
        round_trip(Arc::new(BooleanArray::from(vec![false, true])));
        round_trip(Arc::new(Date32Array::from(vec![-5, 0, 9])));
        let times = TimestampMicrosecondArray::from(vec![i64::MIN, -1, 7]).with_timezone("+00:00");
        round_trip(Arc::new(times));
        round_trip(Arc::new(Float32Array::from(vec![f32::NEG_INFINITY, -1.5, 0.0, 2.5, f32::INFINITY])));
        let mut floats = vec![f64::NEG_INFINITY, -2.0, -0.0, 0.0, f64::MIN_POSITIVE, f64::INFINITY];
        round_trip(Arc::new(Float64Array::from(floats.clone())));
        floats.push(-f64::NAN);
        let words = to_words(Class::Float, &(Arc::new(Float64Array::from(floats)) as ArrayRef)).unwrap();
        assert!(words.is_sorted() && word_float(words[6]).is_nan());
    }
}
