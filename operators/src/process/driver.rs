//! The operator below every process function: bounded steps over rows and timers, one flush of
//! the output a step, snapshots.
//!
//! What differs between one input, two, and one with a broadcast is behind [`Function`].

use std::sync::Arc;

use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step,
};
use thalweg_engine::record::{Batch, EdgeSchema, Record};
use thalweg_engine::state::key_encoding::KeyEncoder;
use thalweg_engine::state::{KeyedState, KeyedStateSpec, RestoredState, StateIdentity};
use thalweg_engine::time::{Micros, Watermark};
use thalweg_engine::{Error, Result};

use super::context::{ProcessContext, ProcessOpen, TimeDomain, Timer};
use super::keys::{KeyCursor, KeyedInput};
use crate::typed::{Out, SideOutputs};

/// Timers that fire in one step at most.
const STEP_TIMERS_MAX: usize = 4096;

/// A process function of any number of inputs.
pub(super) trait Function: Clone + Send + Sync + 'static {
    type Out: Record;

    fn name(&self) -> &'static str;
    fn sides(&self) -> SideOutputs;
    /// Refuses input schemas that do not fit.
    fn check(&self, inputs: &[EdgeSchema]) -> Result<()>;
    fn open(&mut self, cx: &mut ProcessOpen<'_>, restored: &RestoredState) -> Result<()>;
    /// Takes rows from `from` on until all are done or the step is full; returns the next row.
    fn rows(
        &mut self,
        input: usize,
        batch: &Batch,
        from: usize,
        run: &mut Run<'_, Self::Out>,
    ) -> Result<usize>;
    fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, Self::Out>) -> Result<()>;
    /// Adds what is not keyed state to a snapshot.
    fn snapshot(&self, snapshot: &mut OperatorSnapshot) -> Result<()> {
        let _ = snapshot;
        Ok(())
    }
}

/// The two input schemas of a function that has exactly two.
///
/// # Errors
/// An internal error for any other number.
pub(super) fn two_inputs(inputs: &[EdgeSchema]) -> Result<&[EdgeSchema; 2]> {
    let other = |_| Error::internal(format!("process takes two inputs, the graph gives {}", inputs.len()));
    inputs.try_into().map_err(other)
}

/// What a step works with.
pub(super) struct Run<'a, U: Record> {
    pub state: &'a mut KeyedState,
    pub out: &'a mut Out<U>,
    pub cursors: &'a mut [KeyCursor],
    pub watermark: Watermark,
    pub now: Micros,
}

impl<U: Record> Run<'_, U> {
    /// Whether event time goes on at all.
    pub fn has_watermarks(&self) -> bool {
        self.cursors.iter().any(KeyCursor::has_watermarks)
    }

    /// Calls `each` with rows `from..` of a keyed input's batch, with the row's key current, until
    /// all are done or the step is full. Returns the next row.
    pub fn keyed_rows(
        &mut self,
        input: usize,
        batch: &Batch,
        from: usize,
        mut each: impl FnMut(usize, &mut ProcessContext<'_, U>) -> Result<()>,
    ) -> Result<usize> {
        let has_watermarks = self.has_watermarks();
        let cursor = &mut self.cursors[input];
        let columns = cursor.columns(batch);
        let rows = cursor.begin(batch, &columns)?;
        for row in from..batch.row_count() {
            cursor.select(&rows, row, self.state);
            let mut cx = ProcessContext {
                state: self.state,
                out: self.out,
                key_types: cursor.types(),
                time: rows.time(row),
                watermark: self.watermark,
                has_watermarks,
                now: self.now,
            };
            each(row, &mut cx)?;
            if self.out.is_full() {
                return Ok(row + 1);
            }
        }
        Ok(batch.row_count())
    }
}

/// Makes the instances of a process function.
pub(super) struct ProcessOperator<F> {
    function: F,
    inputs: Arc<[KeyedInput]>,
}

impl<F: Function> ProcessOperator<F> {
    /// `inputs` are the keyed ones, which come first.
    pub fn new(function: F, inputs: Vec<KeyedInput>) -> Self {
        ProcessOperator { function, inputs: inputs.into() }
    }
}

impl<F: Function> OperatorFactory for ProcessOperator<F> {
    fn name(&self) -> String {
        self.function.name().to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        let cursors = self.inputs.iter().cloned().map(KeyCursor::new).collect();
        let out = Out::new(&self.function.sides());
        Ok(Box::new(Process {
            function: self.function.clone(),
            state: None,
            out,
            cursors,
            pending: Pending::Nothing,
        }))
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        self.function.check(inputs)?;
        for input in &*self.inputs {
            KeyEncoder::new(&input.types)?;
        }
        if let [left, right] = &*self.inputs
            && left.types != right.types
        {
            return Err(Error::user(format!(
                "the two keys have different types: {:?} and {:?}",
                left.types, right.types
            )));
        }
        self.function.sides().edges_after(F::Out::edge_schema()?)
    }

    fn identity(&self, inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        let of = |input: usize| Some((&inputs.get(input)?.schema, self.inputs.get(input)?.key.as_slice()));
        let identity = StateIdentity::of(self.function.name());
        let identity = of(0).map_or(identity.clone(), |(schema, key)| identity.keyed_by(schema, key));
        Some(match of(1) {
            Some((schema, key)) => identity.with_columns("right key", schema, key),
            None => identity,
        })
    }

    fn is_keyed(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        let keys: Vec<_> = self.inputs.iter().map(|input| &input.key).collect();
        format!("{} by {keys:?} {:?}", self.function.name(), self.function.sides().names())
    }
}

/// What is left of the last event.
enum Pending {
    Nothing,
    Rows { input: usize, batch: Batch, next: usize },
    EventTimers,
    ProcessingTimers,
}

struct Process<F: Function> {
    function: F,
    state: Option<KeyedState>,
    out: Out<F::Out>,
    cursors: Vec<KeyCursor>,
    pending: Pending,
}

fn not_open() -> Error {
    Error::internal("a process function is used before it is open")
}

impl<F: Function> Process<F> {
    /// One bounded step of what is pending.
    fn step(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let state = self.state.as_mut().ok_or_else(not_open)?;
        let mut run = Run {
            state,
            out: &mut self.out,
            cursors: &mut self.cursors,
            watermark: cx.watermark(),
            now: cx.now(),
        };
        let more = match &mut self.pending {
            Pending::Nothing => false,
            Pending::Rows { input, batch, next } => {
                *next = self.function.rows(*input, batch, *next, &mut run)?;
                *next < batch.row_count()
            }
            Pending::EventTimers => fire(&mut self.function, TimeDomain::Event, &mut run)?,
            Pending::ProcessingTimers => fire(&mut self.function, TimeDomain::Processing, &mut run)?,
        };
        if let Some(at) = run.state.earliest_processing_timer()? {
            cx.wake_at(at);
        }
        self.out.flush(cx)?;
        if more {
            return Ok(Step::More);
        }
        self.pending = Pending::Nothing;
        Ok(Step::Done)
    }
}

/// Fires due timers; `true` when there may be more.
fn fire<F: Function>(function: &mut F, domain: TimeDomain, run: &mut Run<'_, F::Out>) -> Result<bool> {
    for _ in 0..STEP_TIMERS_MAX {
        let due = match domain {
            TimeDomain::Event => run.state.next_due_event_timer(run.watermark)?,
            TimeDomain::Processing => run.state.next_due_processing_timer(run.now)?,
        };
        let Some(due) = due else {
            return Ok(false);
        };
        let has_watermarks = run.has_watermarks();
        let timer = Timer { time: due.time.into(), domain, namespace: due.namespace };
        let mut cx = ProcessContext {
            state: run.state,
            out: run.out,
            key_types: run.cursors.first().map_or(&[], KeyCursor::types),
            time: Some(timer.time.0),
            watermark: run.watermark,
            has_watermarks,
            now: run.now,
        };
        function.on_timer(timer, &mut cx)?;
        if run.out.is_full() {
            break;
        }
    }
    Ok(true)
}

impl<F: Function> Operator for Process<F> {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let mut state = cx.keyed_state(KeyedStateSpec::of_backend(cx.backend.as_ref()))?;
        let mut open = ProcessOpen { state: &mut state, info: cx.info, metrics: cx.metrics };
        self.function.open(&mut open, cx.restored)?;
        if state.earliest_processing_timer()?.is_some() {
            // A wake-up can be asked for only while an event is dealt with; this makes one.
            cx.waker.wake();
        }
        self.state = Some(state);
        Ok(())
    }

    fn process(&mut self, input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.pending = Pending::Rows { input, batch, next: 0 };
        self.step(cx)
    }

    fn watermark(&mut self, _watermark: Watermark, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.pending = Pending::EventTimers;
        self.step(cx)
    }

    fn is_interruptible(&self) -> bool {
        true
    }

    fn wake(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.pending = Pending::ProcessingTimers;
        self.step(cx)
    }

    fn resume(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.step(cx)
    }

    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        if let Pending::Rows { .. } = self.pending {
            return Err(Error::internal("a barrier came while a batch was half done"));
        }
        let mut snapshot = self.state.as_mut().ok_or_else(not_open)?.snapshot(checkpoint)?;
        self.function.snapshot(&mut snapshot)?;
        Ok(snapshot)
    }

    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.state.as_mut().ok_or_else(not_open)?.checkpoint_completed(checkpoint)
    }

    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.state.as_mut().ok_or_else(not_open)?.checkpoint_aborted(checkpoint)
    }
}
