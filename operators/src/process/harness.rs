//! Harnesses for process functions, for a user's own tests.

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
/// ```
/// use thalweg_engine::Result;
/// use thalweg_engine::record::{Record, Timestamp};
/// use thalweg_engine::state::ValueState;
/// use thalweg_operators::process::*;
///
/// #[derive(Debug, PartialEq, Record)]
/// #[record(crate = "thalweg_engine")]
/// struct Click {
///     user: String,
///     #[record(time)]
///     at: Timestamp,
/// }
///
/// #[derive(Debug, PartialEq, Record)]
/// #[record(crate = "thalweg_engine")]
/// struct Clicks {
///     user: String,
///     count: u64,
/// }
///
/// /// Counts a user's clicks until there was none for a minute.
/// #[derive(Clone, Default)]
/// struct Sessions {
///     count: ValueState<(Timestamp, u64)>,
/// }
///
/// impl KeyedProcess for Sessions {
///     type In = Click;
///     type Out = Clicks;
///
///     fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
///         self.count = cx.value("count")?;
///         Ok(())
///     }
///
///     fn process(&mut self, row: ClickRow<'_>, cx: &mut ProcessContext<'_, Clicks>) -> Result<()> {
///         let (last, count) = self.count.get(cx.state())?.copied().unwrap_or((row.at, 0));
///         self.count.set(cx.state(), (last.max(row.at), count + 1))?;
///         cx.register_event_timer(row.at + 60_000_000)
///     }
///
///     fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, Clicks>) -> Result<()> {
///         if let Some((last, count)) = self.count.get(cx.state())?.copied()
///             && last + 60_000_000 <= timer.time
///         {
///             self.count.clear(cx.state())?;
///             cx.emit(Clicks { user: cx.key(0)?, count });
///         }
///         Ok(())
///     }
/// }
///
/// let click = |seconds| Click { user: "ada".into(), at: Timestamp::from_seconds(seconds) };
/// let builder = process_harness(Sessions::default(), &["user"])?;
/// let mut harness = builder.open()?;
/// harness.push(0, [click(0), click(30)])?;
/// harness.watermark(0, Timestamp::from_seconds(80))?;
/// assert_eq!(harness.take_records::<Clicks>(0)?, []);
///
/// let mut restored = builder.parallelism(2).restore(&harness.snapshot()?)?;
/// restored.end(0)?;
/// assert_eq!(restored.take_records::<Clicks>(0)?, [Clicks { user: "ada".into(), count: 2 }]);
/// # Ok::<(), thalweg_engine::Error>(())
/// ```
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
