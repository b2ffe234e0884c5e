//! Harnesses for process functions, for a user's own tests.
//!
//! ```ignore
//! let mut harness = process_harness(LateTwice::default(), &["tail"])?.open()?;
//! harness.push(0, [departure])?;
//! harness.watermark(0, an_hour_later)?;
//! assert_eq!(harness.take_records::<Alert>(0)?, []);
//! ```

use std::sync::Arc;

use thalweg_engine::Result;
use thalweg_engine::harness::{HarnessBuilder, HarnessInput};

use super::broadcast::{KeyedBroadcastProcess, WithBroadcast};
use super::co::{KeyedCoProcess, TwoInputs};
use super::driver::{Function, ProcessOperator};
use super::keyed::{KeyedProcess, OneInput};
use super::keys::KeyedInput;

/// A harness for a process function: input 0, keyed by these columns.
///
/// # Errors
/// A user error when a column is missing or cannot be a key.
pub fn process_harness<P: KeyedProcess>(function: P, key: &[&str]) -> Result<HarnessBuilder> {
    Ok(builder(OneInput(function), vec![HarnessInput::of::<P::In>()?.keyed(key)?]))
}

/// A harness for a process function over two inputs: left is input 0, right is input 1.
///
/// # Errors
/// As [`process_harness`].
pub fn co_process_harness<P: KeyedCoProcess>(
    function: P,
    left_key: &[&str],
    right_key: &[&str],
) -> Result<HarnessBuilder> {
    let left = HarnessInput::of::<P::Left>()?.keyed(left_key)?;
    let right = HarnessInput::of::<P::Right>()?.keyed(right_key)?;
    Ok(builder(TwoInputs(function), vec![left, right]))
}

/// A harness for a process function with a broadcast: keyed is input 0, broadcast is input 1.
///
/// # Errors
/// As [`process_harness`].
pub fn broadcast_process_harness<P: KeyedBroadcastProcess>(
    function: P,
    key: &[&str],
) -> Result<HarnessBuilder> {
    let keyed = HarnessInput::of::<P::In>()?.keyed(key)?;
    let broadcast = HarnessInput::of::<P::Broadcast>()?.broadcast();
    Ok(builder(WithBroadcast::new(function), vec![keyed, broadcast]))
}

fn builder<F: Function>(function: F, inputs: Vec<HarnessInput>) -> HarnessBuilder {
    let keyed = inputs.iter().filter(|input| !input.key().is_empty());
    let keyed = keyed.map(|input| KeyedInput::new(input.edge(), input.key())).collect();
    HarnessBuilder::new(Arc::new(ProcessOperator::new(function, keyed)), inputs)
}
