//! One instance of the operator under test, driven step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::operator::{Operator, OperatorContext, OutputIndex, Step, SubtaskInfo, Waker};
use crate::record::{Batch, EdgeSchema};
use crate::time::{Micros, Watermark};
use crate::{Error, Result};

/// An operator that wants more steps than this for one event will never be done.
const STEPS_MAX: usize = 1_000_000;

pub(super) struct Instance {
    pub operator: Box<dyn Operator>,
    pub info: SubtaskInfo,
    pub wake_at: Option<Micros>,
    woken: Arc<AtomicBool>,
}

/// What one event made an instance emit, in order, and the most rows of one step.
#[derive(Default)]
pub(super) struct Effects {
    pub batches: Vec<(OutputIndex, Batch)>,
    pub step_rows_max: usize,
}

impl Instance {
    pub fn new(operator: Box<dyn Operator>, info: SubtaskInfo) -> Self {
        Instance { operator, info, wake_at: None, woken: Arc::new(AtomicBool::new(false)) }
    }

    /// What the operator wakes its task with.
    pub fn waker(&self) -> Waker {
        let woken = self.woken.clone();
        Waker::new(move || woken.store(true, Ordering::SeqCst))
    }

    /// Whether the waker was used since the last look.
    pub fn take_woken(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }

    /// Gives the operator one event and steps it until it is done.
    pub fn drive(
        &mut self,
        outputs: &[EdgeSchema],
        watermark: Watermark,
        now: Micros,
        event: impl FnOnce(&mut dyn Operator, &mut OperatorContext<'_>) -> Result<Step>,
    ) -> Result<Effects> {
        match self.steps(outputs, watermark, now, Some(event), STEPS_MAX)? {
            (effects, Step::Done) => Ok(effects),
            (_, Step::More) => {
                Err(Error::internal(format!("the operator is not done after {STEPS_MAX} steps")))
            }
        }
    }

    /// Gives the operator an event, or lets it go on with the last one, for at most so many steps
    /// (at least one). Answers with what the last step answered.
    pub fn steps(
        &mut self,
        outputs: &[EdgeSchema],
        watermark: Watermark,
        now: Micros,
        mut event: Option<impl FnOnce(&mut dyn Operator, &mut OperatorContext<'_>) -> Result<Step>>,
        steps_max: usize,
    ) -> Result<(Effects, Step)> {
        let mut effects = Effects::default();
        for _ in 0..steps_max {
            let first = effects.batches.len();
            let mut cx = OperatorContext::new(&mut effects.batches, &mut self.wake_at, watermark, now);
            let step = match event.take() {
                Some(event) => event(self.operator.as_mut(), &mut cx)?,
                None => self.operator.resume(&mut cx)?,
            };
            let emitted = &effects.batches[first..];
            emitted.iter().try_for_each(|(output, batch)| check(outputs, *output, batch))?;
            let rows = emitted.iter().map(|(_, batch)| batch.row_count()).sum();
            effects.step_rows_max = effects.step_rows_max.max(rows);
            if step == Step::Done {
                return Ok((effects, step));
            }
        }
        Ok((effects, Step::More))
    }
}

/// Holds a batch to what the operator announced.
fn check(outputs: &[EdgeSchema], output: OutputIndex, batch: &Batch) -> Result<()> {
    let Some(edge) = outputs.get(usize::from(output.0)) else {
        let message = format!("the operator emits to output {}, it announced {}", output.0, outputs.len());
        return Err(Error::internal(message));
    };
    if batch.schema().fields() != edge.schema.fields() {
        return Err(Error::internal(format!(
            "the operator emits {:?} on output {}, it announced {:?}",
            batch.schema().fields(),
            output.0,
            edge.schema.fields()
        )));
    }
    Ok(())
}
