//! Tumbling windows: the assignment of rows, and what a job says about them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use thalweg_engine::operator::{Operator, OperatorFactory, single_input};
use thalweg_engine::record::{EdgeSchema, Mode, time_type};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::time::{Micros, show_duration};
use thalweg_engine::{Context, Error, Result};

use super::tumbling_operator::TumblingOperator;
use crate::aggregate::{AggregateSet, AggregateSpec};
use crate::bound_input::{BoundInput, key_in};

/// The output column with a window's first microsecond.
pub const WINDOW_START: &str = "window_start";
/// The output column with the first microsecond after a window.
pub const WINDOW_END: &str = "window_end";
/// The output's event time: a window's last microsecond.
pub const WINDOW_TIME: &str = "window_time";
/// The first state word says whether the window has fired; the aggregates' words follow.
pub(super) const FIRST_AGGREGATE_WORD: usize = 1;

/// Windows `[offset + n * size, offset + (n + 1) * size)` for every whole `n`. Microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    size: Micros,
    /// `0 <= offset < size`.
    offset: Micros,
}

impl WindowSize {
    /// Windows of `size` microseconds that begin `offset` after the epoch's multiples of it; any
    /// sign, as for zones whose day does not begin with the epoch's.
    ///
    /// # Errors
    /// A user error when the size is not positive.
    pub fn new(size: Micros, offset: Micros) -> Result<WindowSize> {
        if size <= 0 {
            return Err(Error::user(format!("a window's size is {size} microseconds; it must be positive")));
        }
        Ok(WindowSize { size, offset: offset.rem_euclid(size) })
    }

    /// The size in microseconds.
    pub fn size(self) -> Micros {
        self.size
    }

    /// The start of the window that `time` falls into; `None` when start or end is beyond what a
    /// timestamp can say.
    #[inline]
    pub fn start_of(self, time: Micros) -> Option<Micros> {
        let into = time.rem_euclid(self.size) - self.offset;
        let into = if into < 0 { into + self.size } else { into };
        let start = time.checked_sub(into)?;
        start.checked_add(self.size)?;
        Some(start)
    }
}

/// Tumbling event-time windows per key. The input is keyed, append and has an event time.
///
/// # Output
/// The key's columns, `WINDOW_START`, `WINDOW_END` (exclusive), `WINDOW_TIME` and the
/// aggregates; the names are those of Flink's window table functions. `window_time` is the
/// output's event time and one microsecond before the end (Flink: a millisecond, its unit), so that
/// windows over windows of the same size find their rows. A window fires when the watermark reaches
/// `window_time`.
///
/// Without allowed lateness a window fires once and the output is append. With it, a row that comes
/// after its window fired but no later than `window_time + lateness` updates the window, which fires
/// again at once (one row per key, window and batch); the output is then in upsert mode by key and
/// window. Semantics are those of Flink's `EventTimeTrigger` and `allowedLateness`.
///
/// # Side output 1
/// Rows that come later than that, and rows whose event time is null, as they came; they are
/// counted in `window_late_rows_total` and `window_null_time_rows_total`. The watermark is part of
/// the checkpoint: what is late stays late after a restore.
#[derive(Clone, Debug)]
pub struct Tumbling {
    pub(super) key: Vec<usize>,
    size: Micros,
    offset: Micros,
    pub(super) lateness: Micros,
    aggregates: Vec<AggregateSpec>,
    pub(super) memory_bytes: Option<usize>,
    input: Arc<BoundInput>,
}

impl Tumbling {
    /// Windows of `size` microseconds per key; `key` are the key's columns, as
    /// [`thalweg_engine::graph::KeyedStream::key`] gives them.
    pub fn new(key: &[usize], size: Micros, aggregates: impl IntoIterator<Item = AggregateSpec>) -> Self {
        Tumbling {
            key: key.to_vec(),
            size,
            offset: 0,
            lateness: 0,
            aggregates: aggregates.into_iter().collect(),
            memory_bytes: None,
            input: Arc::default(),
        }
    }

    /// Moves all windows by `offset` microseconds.
    #[must_use]
    pub fn offset(mut self, offset: Micros) -> Self {
        self.offset = offset;
        self
    }

    /// Keeps a window for `lateness` microseconds after it fired, for rows that come late. It may be
    /// another than in the checkpoint that the job goes on from: windows that are there are kept for
    /// as long as it now says, and of those that are gone later rows make new ones, without the rows
    /// that they had.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Micros) -> Self {
        self.lateness = lateness;
        self
    }

    /// Bounds the bytes of windows that an instance keeps in memory; the others are in its store. By
    /// default the instance's share of the process's budget.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: usize) -> Self {
        self.memory_bytes = Some(bytes);
        self
    }

    pub(super) fn window(&self) -> Result<WindowSize> {
        if self.lateness < 0 {
            return Err(Error::user(format!(
                "the allowed lateness is {} microseconds; it cannot be negative",
                self.lateness
            )));
        }
        WindowSize::new(self.size, self.offset)
    }

    fn bind(&self, input: &EdgeSchema) -> Result<(AggregateSet, SchemaRef, usize)> {
        let time = input.event_time().context(|| "windows are over event time".to_string())?;
        let set = AggregateSet::bind(&self.aggregates, input, FIRST_AGGREGATE_WORD)?;
        let mut fields: Vec<_> = self.key.iter().map(|&column| input.schema.field(column).clone()).collect();
        let window = [WINDOW_START, WINDOW_END, WINDOW_TIME];
        fields.extend(window.map(|name| Field::new(name, time_type(), false)));
        fields.extend(set.fields());
        for (index, field) in fields.iter().enumerate() {
            if fields[..index].iter().any(|other| other.name() == field.name()) {
                let name = field.name();
                return Err(Error::user(format!(
                    "two output columns are called {name:?}; give one an alias"
                )));
            }
        }
        Ok((set, Arc::new(Schema::new(fields)), time))
    }
}

impl OperatorFactory for Tumbling {
    fn name(&self) -> String {
        "tumbling window".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        let input = self.input.get()?;
        let (set, output, time) = self.bind(input)?;
        let key_types: Vec<DataType> =
            self.key.iter().map(|&column| input.schema.field(column).data_type().clone()).collect();
        Ok(Box::new(TumblingOperator::new(self.clone(), self.window()?, set, output, time, key_types)))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        let input = single_input(inputs)?;
        key_in(input, &self.key)?;
        self.window()?;
        let (_, output, _) = self.bind(input)?;
        self.input.bind(input)?;
        let mut main = EdgeSchema::new(output.clone()).with_time(WINDOW_TIME)?;
        if self.lateness > 0 {
            let identity = self.key.len() + 2;
            let names = output.fields().iter().take(identity).map(|field| field.name().clone()).collect();
            main = main.with_mode(Mode::Upsert(names));
        }
        Ok(vec![main, input.clone()])
    }

    fn identity(&self, inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        let input = inputs.first()?;
        let identity = StateIdentity::of("tumbling window")
            .keyed_by(&input.schema, &self.key)
            .with("size", show_duration(self.size))
            .with("offset", show_duration(self.window().ok()?.offset));
        AggregateSet::identify(&self.aggregates, input, identity)
    }

    fn is_keyed(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!(
            "tumbling window by {:?} of {} + {} us, lateness {} us: {:?}",
            self.key, self.size, self.offset, self.lateness, self.aggregates
        )
    }
}
