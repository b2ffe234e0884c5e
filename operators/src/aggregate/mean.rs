//! `mean`: sum and count. Integers are summed exactly in 128 bits, so the mean does not depend on
//! the order of rows; floats are summed as floats.

use arrow::array::types::{Float64Type, Int64Type, UInt64Type};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::datatypes::DataType;
use std::sync::Arc;
use thalweg_engine::Result;
use thalweg_engine::state::columnar::{Rows, WordKind};

use super::ordered::Class;
use super::set::{Aggregate, Input};
use super::sum::{for_valid, number_class};

/// Words: count, then the sum (a float, or the lower and the upper half of an `i128`).
pub(super) struct Mean {
    class: Class,
}

impl Mean {
    pub(super) fn new(data_type: &DataType) -> Result<Mean> {
        Ok(Mean { class: number_class(data_type)? })
    }
}

fn sum_of(words: &[u64]) -> i128 {
    (u128::from(words[0]) | (u128::from(words[1]) << 64)) as i128
}

/// 2^64 values of 64 bits each do not overflow 128 bits.
fn add(words: &mut [u64], value: i128) {
    let sum = sum_of(&words[1..]).wrapping_add(value) as u128;
    words[0] += 1;
    words[1] = sum as u64;
    words[2] = (sum >> 64) as u64;
}

impl Aggregate for Mean {
    fn words(&self) -> Vec<WordKind> {
        vec![WordKind::Plain; if self.class == Class::Float { 2 } else { 3 }]
    }

    fn output_type(&self) -> DataType {
        DataType::Float64
    }

    fn update(&self, rows: &mut Rows<'_>, at: usize, input: &Input<'_>) -> Result<()> {
        let wide = self.class.widen(input.values()?)?;
        let nulls = wide.nulls();
        match self.class {
            Class::Signed => {
                let values = wide.as_primitive::<Int64Type>().values();
                for_valid(input.slots, values, nulls, |slot, value| {
                    add(&mut rows.get_mut(slot)[at..], value.into());
                    Ok(())
                })
            }
            Class::Unsigned => {
                let values = wide.as_primitive::<UInt64Type>().values();
                for_valid(input.slots, values, nulls, |slot, value| {
                    add(&mut rows.get_mut(slot)[at..], value.into());
                    Ok(())
                })
            }
            Class::Float => {
                let values = wide.as_primitive::<Float64Type>().values();
                for_valid(input.slots, values, nulls, |slot, value| {
                    let words = rows.get_mut(slot);
                    words[at] += 1;
                    words[at + 1] = (f64::from_bits(words[at + 1]) + value).to_bits();
                    Ok(())
                })
            }
        }
    }

    fn emit(&self, rows: &Rows<'_>, at: usize, slots: &[u32]) -> Result<ArrayRef> {
        let mean = |slot: &u32| {
            let words = &rows.get(*slot)[at..];
            let sum = match self.class {
                Class::Float => f64::from_bits(words[1]),
                _ => sum_of(&words[1..]) as f64,
            };
            (words[0] > 0).then(|| sum / words[0] as f64)
        };
        Ok(Arc::new(slots.iter().map(mean).collect::<Float64Array>()))
    }
}
