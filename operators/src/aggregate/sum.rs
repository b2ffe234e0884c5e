//! `sum`: the sum in 64 bits and whether there was a value. Integers that overflow are an error.

use arrow::array::types::{Float64Type, Int64Type, UInt64Type};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, UInt64Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;
use std::sync::Arc;
use thalweg_engine::state::columnar::{Rows, WordKind};
use thalweg_engine::{Error, Result};

use super::ordered::Class;
use super::set::{Aggregate, Input};

pub(super) struct Sum {
    class: Class,
}

impl Sum {
    pub(super) fn new(data_type: &DataType) -> Result<Sum> {
        Ok(Sum { class: number_class(data_type)? })
    }
}

/// The class of a type that has sums.
pub(super) fn number_class(data_type: &DataType) -> Result<Class> {
    let summable = data_type.is_integer() || data_type.is_floating();
    Class::of(data_type)
        .filter(|_| summable)
        .ok_or_else(|| Error::user(format!("it takes integers and floats, not {data_type}")))
}

/// Calls `add` for each row that has a value.
#[inline]
pub(super) fn for_valid<T: Copy>(
    slots: &[u32],
    values: &[T],
    nulls: Option<&NullBuffer>,
    mut add: impl FnMut(u32, T) -> Result<()>,
) -> Result<()> {
    match nulls.filter(|nulls| nulls.null_count() > 0) {
        Some(nulls) => nulls.valid_indices().try_for_each(|row| add(slots[row], values[row])),
        None => slots.iter().zip(values).try_for_each(|(&slot, &value)| add(slot, value)),
    }
}

impl Aggregate for Sum {
    fn words(&self) -> Vec<WordKind> {
        vec![WordKind::Plain; 2]
    }

    fn output_type(&self) -> DataType {
        self.class.wide()
    }

    fn update(&self, rows: &mut Rows<'_>, at: usize, input: &Input<'_>) -> Result<()> {
        let wide = self.class.widen(input.values()?)?;
        let overflow = || Error::user("the sum does not fit into 64 bits");
        let nulls = wide.nulls();
        match self.class {
            Class::Signed => {
                let values = wide.as_primitive::<Int64Type>().values();
                for_valid(input.slots, values, nulls, |slot, value| {
                    let words = rows.get_mut(slot);
                    words[at] = (words[at] as i64).checked_add(value).ok_or_else(overflow)? as u64;
                    words[at + 1] = 1;
                    Ok(())
                })
            }
            Class::Unsigned => {
                let values = wide.as_primitive::<UInt64Type>().values();
                for_valid(input.slots, values, nulls, |slot, value| {
                    let words = rows.get_mut(slot);
                    words[at] = words[at].checked_add(value).ok_or_else(overflow)?;
                    words[at + 1] = 1;
                    Ok(())
                })
            }
            Class::Float => {
                let values = wide.as_primitive::<Float64Type>().values();
                for_valid(input.slots, values, nulls, |slot, value| {
                    let words = rows.get_mut(slot);
                    words[at] = (f64::from_bits(words[at]) + value).to_bits();
                    words[at + 1] = 1;
                    Ok(())
                })
            }
        }
    }

    fn emit(&self, rows: &Rows<'_>, at: usize, slots: &[u32]) -> Result<ArrayRef> {
        let words = slots.iter().map(|&slot| rows.get(slot)).map(|row| (row[at + 1] > 0).then_some(row[at]));
        Ok(match self.class {
            Class::Signed => Arc::new(words.map(|word| word.map(|w| w as i64)).collect::<Int64Array>()),
            Class::Unsigned => Arc::new(words.collect::<UInt64Array>()),
            Class::Float => Arc::new(words.map(|word| word.map(f64::from_bits)).collect::<Float64Array>()),
        })
    }
}
