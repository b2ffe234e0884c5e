//! `count(*)` and `count(x)`: one word.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use thalweg_engine::Result;
use thalweg_engine::state::columnar::{Rows, WordKind};

use super::set::{Aggregate, Input};

pub(super) struct Count;

impl Aggregate for Count {
    fn words(&self) -> Vec<WordKind> {
        vec![WordKind::Plain]
    }

    fn output_type(&self) -> DataType {
        DataType::Int64
    }

    fn update(&self, rows: &mut Rows<'_>, at: usize, input: &Input<'_>) -> Result<()> {
        match input.values.and_then(|values| values.logical_nulls()) {
            Some(nulls) => {
                for row in nulls.valid_indices() {
                    rows.get_mut(input.slots[row])[at] += 1;
                }
            }
            None => {
                for &slot in input.slots {
                    rows.get_mut(slot)[at] += 1;
                }
            }
        }
        Ok(())
    }

    fn emit(&self, rows: &Rows<'_>, at: usize, slots: &[u32]) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(slots.iter().map(|&slot| rows.get(slot)[at] as i64))))
    }
}
