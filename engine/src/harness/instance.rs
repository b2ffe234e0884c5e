//! One instance of the operator under test, driven step by step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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

/// An operator that waits longer for work elsewhere was forgotten by it.
const WAIT_MAX: Duration = Duration::from_secs(60);

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

    /// Waits until the waker is used.
    pub fn wait_woken(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while !self.take_woken() {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        true
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
            (_, Step::More | Step::Wait) => {
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
            match step {
                Step::Done => return Ok((effects, step)),
                Step::Wait if !self.wait_woken(WAIT_MAX) => {
                    return Err(Error::internal("the operator waits, and nobody wakes it"));
                }
                Step::Wait | Step::More => {}
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
