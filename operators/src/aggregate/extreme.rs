//! `min` and `max`, and `first` and `last`, which are the extremes of (event time, value).

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use std::sync::Arc;
use thalweg_engine::state::columnar::{Rows, WordKind};
use thalweg_engine::{Error, Result};

use super::ordered::{Class, from_words, to_words};
use super::set::{Aggregate, Input};

/// Which extreme is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Smallest,
    Largest,
}

impl Order {
    /// Turns a word over so that the kept one is always the smaller.
    fn mask(self) -> u64 {
        match self {
            Order::Smallest => 0,
            Order::Largest => u64::MAX,
        }
    }
}

/// The event time of a row as a word in ascending order. `None`: the row has none and counts for
/// no `first` or `last`.
fn time_word(input: &Input<'_>, row: usize) -> Option<u64> {
    let times = input.times?;
    times.is_valid(row).then(|| times.value(row) as u64 ^ (1 << 63))
}

/// Over numbers, times and booleans. Words: seen, the value, and the event time for `first` and
/// `last`; the latter two turned over for the largest.
pub(super) struct Extreme {
    data_type: DataType,
    class: Class,
    order: Order,
    by_time: bool,
}

impl Extreme {
    pub(super) fn new(data_type: &DataType, order: Order, by_time: bool) -> Result<Extreme> {
        let class = Class::of(data_type).ok_or_else(|| {
            Error::user(format!("it takes numbers, strings, times and booleans, not {data_type}"))
        })?;
        Ok(Extreme { data_type: data_type.clone(), class, order, by_time })
    }
}

impl Aggregate for Extreme {
    fn words(&self) -> Vec<WordKind> {
        vec![WordKind::Plain; if self.by_time { 3 } else { 2 }]
    }

    fn output_type(&self) -> DataType {
        self.data_type.clone()
    }

    fn update(&self, rows: &mut Rows<'_>, at: usize, input: &Input<'_>) -> Result<()> {
        let values = input.values()?;
        let words = to_words(self.class, values)?;
        let nulls = values.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let mask = self.order.mask();
        for (row, (&slot, word)) in input.slots.iter().zip(words).enumerate() {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            let value = word ^ mask;
            let state = &mut rows.get_mut(slot)[at..];
            if self.by_time {
                let Some(time) = time_word(input, row).map(|time| time ^ mask) else { continue };
                if state[0] == 0 || (time, value) < (state[2], state[1]) {
                    state[..3].copy_from_slice(&[1, value, time]);
                }
            } else if state[0] == 0 || value < state[1] {
                state[..2].copy_from_slice(&[1, value]);
            }
        }
        Ok(())
    }

    fn emit(&self, rows: &Rows<'_>, at: usize, slots: &[u32]) -> Result<ArrayRef> {
        let mask = self.order.mask();
        let states = slots.iter().map(|&slot| &rows.get(slot)[at..]);
        let (words, valid) = states.map(|state| (state[1] ^ mask, state[0] != 0)).unzip();
        from_words(&self.data_type, words, valid)
    }
}

/// Over strings. Words: the bytes, and the event time for `first` and `last`.
pub(super) struct ExtremeBytes {
    data_type: DataType,
    order: Order,
    by_time: bool,
}

impl ExtremeBytes {
    pub(super) fn takes(data_type: &DataType) -> bool {
        matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    }

    pub(super) fn new(data_type: &DataType, order: Order, by_time: bool) -> ExtremeBytes {
        ExtremeBytes { data_type: data_type.clone(), order, by_time }
    }

    fn is_better<T: Ord>(&self, candidate: T, kept: T) -> bool {
        match self.order {
            Order::Smallest => candidate < kept,
            Order::Largest => candidate > kept,
        }
    }
}

impl Aggregate for ExtremeBytes {
    fn words(&self) -> Vec<WordKind> {
        if self.by_time { vec![WordKind::Bytes, WordKind::Plain] } else { vec![WordKind::Bytes] }
    }

    fn output_type(&self) -> DataType {
        self.data_type.clone()
    }

    fn update(&self, rows: &mut Rows<'_>, at: usize, input: &Input<'_>) -> Result<()> {
        let values = input.values()?;
        let views = match values.data_type() {
            DataType::Utf8View => values.clone(),
            _ => cast(values, &DataType::Utf8View)?,
        };
        let views = views.as_string_view();
        for (row, &slot) in input.slots.iter().enumerate().filter(|&(row, _)| views.is_valid(row)) {
            let value = views.value(row).as_bytes();
            let kept = rows.bytes(slot, at);
            if self.by_time {
                let Some(time) = time_word(input, row) else { continue };
                let kept_time = rows.get(slot)[at + 1];
                if kept.is_none_or(|kept| self.is_better((time, value), (kept_time, kept))) {
                    rows.set_bytes(slot, at, value);
                    rows.get_mut(slot)[at + 1] = time;
                }
            } else if kept.is_none_or(|kept| self.is_better(value, kept)) {
                rows.set_bytes(slot, at, value);
            }
        }
        Ok(())
    }

    fn emit(&self, rows: &Rows<'_>, at: usize, slots: &[u32]) -> Result<ArrayRef> {
        let mut strings = StringViewBuilder::with_capacity(slots.len());
        for &slot in slots {
            let text = rows.bytes(slot, at).map(std::str::from_utf8).transpose();
            strings.append_option(
                text.map_err(|error| Error::internal("a string's state is not a string").caused_by(error))?,
            );
        }
        let strings: ArrayRef = Arc::new(strings.finish());
        if *strings.data_type() == self.data_type {
            Ok(strings)
        } else {
            Ok(cast(&strings, &self.data_type)?)
        }
    }
}
