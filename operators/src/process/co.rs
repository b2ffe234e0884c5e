//! Process functions over two keyed streams with the same kind of key.

use thalweg_engine::record::{Batch, EdgeSchema, Record, RecordReader, check_schema};
use thalweg_engine::state::RestoredState;
use thalweg_engine::{Context, Result};

use super::context::{ProcessContext, ProcessOpen, Timer};
use super::driver::{Function, Run, two_inputs};
use crate::typed::SideOutputs;

/// A user's logic over the rows of two streams that have the same key: both sides share the key's
/// states and timers. Which side comes first is not defined; put rows aside in state to wait.
pub trait KeyedCoProcess: Clone + Send + Sync + 'static {
    /// What comes in on the left (input 0).
    type Left: Record;
    /// What comes in on the right (input 1).
    type Right: Record;
    /// What goes out.
    type Out: Record;

    /// Called once before anything else: registers the states.
    ///
    /// # Errors
    /// Whatever keeps the function from starting; the job fails with it.
    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Takes a row of the left stream.
    ///
    /// # Errors
    /// Whatever fails the job.
    fn process_left(
        &mut self,
        row: <Self::Left as Record>::Row<'_>,
        cx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<()>;

    /// Takes a row of the right stream.
    ///
    /// # Errors
    /// Whatever fails the job.
    fn process_right(
        &mut self,
        row: <Self::Right as Record>::Row<'_>,
        cx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<()>;

    /// A timer is due; its key is current.
    ///
    /// # Errors
    /// Whatever fails the job.
    fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, Self::Out>) -> Result<()> {
        let _ = (timer, cx);
        Ok(())
    }

    /// The side outputs that the function emits to.
    fn side_outputs(&self) -> SideOutputs {
        SideOutputs::none()
    }
}

#[derive(Clone)]
pub(super) struct TwoInputs<P>(pub P);

impl<P: KeyedCoProcess> Function for TwoInputs<P> {
    type Out = P::Out;

    fn name(&self) -> &'static str {
        "process two"
    }

    fn sides(&self) -> SideOutputs {
        self.0.side_outputs()
    }

    fn check(&self, inputs: &[EdgeSchema]) -> Result<()> {
        let [left, right] = two_inputs(inputs)?;
        check_schema::<P::Left>(&left.schema).context(|| "left input".to_string())?;
        check_schema::<P::Right>(&right.schema).context(|| "right input".to_string())
    }

    fn open(&mut self, cx: &mut ProcessOpen<'_>, _restored: &RestoredState) -> Result<()> {
        self.0.open(cx)
    }

    fn rows(&mut self, input: usize, batch: &Batch, from: usize, run: &mut Run<'_, P::Out>) -> Result<usize> {
        if input == 0 {
            let reader = RecordReader::<P::Left>::new(batch.records())?;
            return run.keyed_rows(input, batch, from, |row, cx| self.0.process_left(reader.row(row), cx));
        }
        let reader = RecordReader::<P::Right>::new(batch.records())?;
        run.keyed_rows(input, batch, from, |row, cx| self.0.process_right(reader.row(row), cx))
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, P::Out>) -> Result<()> {
        self.0.on_timer(timer, cx)
    }
}
