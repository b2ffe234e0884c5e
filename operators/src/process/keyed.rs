//! Process functions over one keyed stream.

use thalweg_engine::Result;
use thalweg_engine::operator::single_input;
use thalweg_engine::record::{Batch, EdgeSchema, Record, RecordReader, check_schema};
use thalweg_engine::state::RestoredState;

use super::context::{ProcessContext, ProcessOpen, Timer};
use super::driver::{Function, Run};
use crate::typed::SideOutputs;

/// A user's logic over each key's rows. One clone runs in each instance; what is in the struct is
/// configuration and state handles, never state: that would neither be keyed nor survive.
pub trait KeyedProcess: Clone + Send + Sync + 'static {
    /// What comes in.
    type In: Record;
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

    /// Takes a row of the current key.
    ///
    /// # Errors
    /// Whatever fails the job.
    fn process(
        &mut self,
        row: <Self::In as Record>::Row<'_>,
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
pub(super) struct OneInput<P>(pub P);

impl<P: KeyedProcess> Function for OneInput<P> {
    type Out = P::Out;

    fn name(&self) -> &'static str {
        "process"
    }

    fn sides(&self) -> SideOutputs {
        self.0.side_outputs()
    }

    fn check(&self, inputs: &[EdgeSchema]) -> Result<()> {
        check_schema::<P::In>(&single_input(inputs)?.schema)
    }

    fn open(&mut self, cx: &mut ProcessOpen<'_>, _restored: &RestoredState) -> Result<()> {
        self.0.open(cx)
    }

    fn rows(&mut self, input: usize, batch: &Batch, from: usize, run: &mut Run<'_, P::Out>) -> Result<usize> {
        let reader = RecordReader::<P::In>::new(batch.records())?;
        run.keyed_rows(input, batch, from, |row, cx| self.0.process(reader.row(row), cx))
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, P::Out>) -> Result<()> {
        self.0.on_timer(timer, cx)
    }
}
