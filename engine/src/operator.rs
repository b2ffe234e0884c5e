//! The operator: a state machine with events in and effects out.
//!
//! The rule it lives by: one call does a bounded amount of work and emits a bounded number of
//! rows. An operator with more to do answers [`Step::More`]; the executor then sends what there
//! is and calls [`Operator::resume`] until it answers [`Step::Done`]. A watermark is forwarded
//! only after the operator is done with it, so an operator never forwards one itself.
//! An operator has no clock, no thread and no socket: time and wake-ups come from its context.

use std::sync::Arc;

use crate::checkpoint::{
    CheckpointId, CheckpointStorage, SnapshotFlush, SnapshotPart, SnapshotSite, SnapshotTask,
};
use crate::graph::Uid;
use crate::metrics::MetricGroup;
use crate::record::{Batch, EdgeSchema, Mode};
use crate::state::{KeyedState, KeyedStateSpec, RestoredState, StateBackend, StateIdentity};
use crate::time::{Micros, Watermark};
use crate::{Error, Result};

/// What an operator answers: whether it wants to be resumed before it gets anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// The event is dealt with.
    Done,
    /// There is more of the same to do: send what was emitted, then call `resume`.
    More,
    /// The event is not dealt with before work elsewhere is done: send what was emitted, and call
    /// `resume` when the operator has used its [`Waker`]. Until then the task gives its operators
    /// nothing, and what stands behind the event (a barrier, a watermark) stands.
    Wait,
}

/// The index of one of an operator's outputs: 0 is the main one, the others are side outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutputIndex(pub u16);

impl OutputIndex {
    /// The main output.
    pub const MAIN: OutputIndex = OutputIndex(0);
}

/// One parallel instance of an operator.
pub trait Operator: Send {
    /// Called once, before anything else: gets state and metrics, restores.
    ///
    /// # Errors
    /// Whatever keeps the operator from starting; the job fails with it.
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Takes a batch of input `input` (0 for operators with one input).
    ///
    /// # Errors
    /// Whatever fails the task.
    fn process(&mut self, input: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step>;

    /// The combined watermark of all inputs rose to `watermark`: fire what is due.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn watermark(&mut self, watermark: Watermark, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let _ = (watermark, cx);
        Ok(Step::Done)
    }

    /// The highest watermark that may pass on now; `None`: whatever came. An operator that holds
    /// rows back, or has them under way elsewhere, says here how far it has come, and later rows
    /// keep coming to it meanwhile. Looked at after each call; what was held back passes behind the
    /// rows that the call emitted.
    fn watermark_bound(&self) -> Option<Watermark> {
        None
    }

    /// The watermark that the operator makes itself, of its rows; `None`: it passes on what comes.
    /// What comes from upstream then ends here, and `Some` of [`Watermark::MAX`] must follow the
    /// highest one that came. Looked at after each call, as [`Operator::watermark_bound`] is.
    fn made_watermark(&self) -> Option<Watermark> {
        None
    }

    /// Whether the watermark that it makes waits for nobody: what lies behind it takes no part in the
    /// watermarks of others. Looked at after each call.
    fn is_idle(&self) -> bool {
        false
    }

    /// Something is about to pass that no row may be overtaken by: a barrier, or the news that the
    /// input is idle. Emit everything that is gathered or under way. [`Operator::snapshot`] follows
    /// with nothing between, unless the checkpoint is aborted meanwhile.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn flush(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let _ = cx;
        Ok(Step::Done)
    }

    /// Whether a barrier may be taken while a watermark is being dealt with, between
    /// [`Step::More`] and the next [`Operator::resume`]. The snapshot must then hold what is left to
    /// do, and a watermark that comes after a restore, the same or a higher one, must find it there:
    /// due windows and timers in state do. As Flink's interruptible timers (FLIP-443).
    fn is_interruptible(&self) -> bool {
        false
    }

    /// A processing time asked for with [`OperatorContext::wake_at`] has come, or the operator's
    /// [`Waker`] was used.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn wake(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let _ = cx;
        Ok(Step::Done)
    }

    /// Goes on with what the last call left.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn resume(&mut self, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let _ = cx;
        Ok(Step::Done)
    }

    /// Input `input` has no more rows. Of the last input it comes after the highest watermark; one
    /// that ends before others takes no part in the watermark from then on.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn end_of_data(&mut self, input: usize, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let _ = (input, cx);
        Ok(Step::Done)
    }

    /// Whether there is no room for more rows. While an operator of a task is full, the task takes
    /// no rows and sleeps; a barrier that is under way still reaches it, with all that lies before
    /// it, so being full never keeps away the checkpoint that makes room. So the operator takes
    /// what comes all the same, and the bound that it keeps is soft by what is under way: for each
    /// barrier what the channels hold, and what the task's own operators make of one element.
    /// When room comes from elsewhere, the operator uses its [`Waker`].
    fn is_full(&self) -> bool {
        false
    }

    /// The barrier of `checkpoint` has come on every input: freeze what the operator knows.
    /// Must be fast; what takes time goes into [`OperatorSnapshot::tasks`].
    ///
    /// # Errors
    /// The checkpoint is declined with it; the task goes on.
    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let _ = checkpoint;
        Ok(OperatorSnapshot::default())
    }

    /// The checkpoint was published; what it holds will not be asked for again.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        let _ = checkpoint;
        Ok(())
    }

    /// The checkpoint will never be published.
    ///
    /// # Errors
    /// Whatever fails the task.
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        let _ = checkpoint;
        Ok(())
    }
}

/// What an operator adds to a checkpoint.
#[derive(Default)]
pub struct OperatorSnapshot {
    /// What is known at once: small state, kept in the manifest itself.
    pub parts: Vec<SnapshotPart>,
    /// What has to be written to the local disk first; runs on a helper thread beside processing.
    pub flushes: Vec<SnapshotFlush>,
    /// What has to be uploaded or waited for; runs on a helper thread beside processing.
    pub tasks: Vec<SnapshotTask>,
}

impl OperatorSnapshot {
    /// Does all of it on this thread, and answers with the parts.
    ///
    /// # Errors
    /// The first piece's that fails.
    pub fn make(self, site: &SnapshotSite) -> Result<Vec<SnapshotPart>> {
        let mut parts = self.parts;
        for flush in self.flushes {
            parts.extend(flush(site)?(site)?);
        }
        for task in self.tasks {
            parts.extend(task(site)?);
        }
        Ok(parts)
    }
}

/// Makes the parallel instances of an operator. One per node of the graph; shared by tasks.
pub trait OperatorFactory: Send + Sync {
    /// What the operator is, for `explain`, logs and metrics: `filter`, `tumbling window`.
    fn name(&self) -> String;

    /// Makes the instance for one subtask.
    ///
    /// # Errors
    /// Whatever keeps the operator from being made.
    fn create(&self) -> Result<Box<dyn Operator>>;

    /// The schemas of its outputs, main first. Called once when the job is built, with the
    /// schemas of its inputs; the place to refuse a missing time column.
    ///
    /// # Errors
    /// A user error that names what does not fit.
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>>;

    /// What the operator's state is, so that a restore can tell whether it still is; `None` when it
    /// adds nothing to a checkpoint. Key, window, aggregates: what the stored bytes mean; never what
    /// may change freely, such as memory or lateness. A sink that commits has an identity for what
    /// it has prepared. Called with schemas that [`OperatorFactory::outputs`] has agreed to.
    fn identity(&self, inputs: &[EdgeSchema]) -> Option<StateIdentity>;

    /// Whether it knows what rows of this mode mean on input `input`: of another one they would be
    /// taken for what they are not. A job that sends it such rows is refused when it is built.
    fn takes(&self, input: usize, mode: &Mode) -> bool {
        let _ = input;
        *mode == Mode::Append
    }

    /// The columns, by index, whose hashes it attaches to its rows, when it keys them.
    fn hashed_by(&self) -> Option<&[usize]> {
        None
    }

    /// Whether the operator is keyed: its inputs carry key hashes and are partitioned by them.
    fn is_keyed(&self) -> bool {
        false
    }

    /// Bytes of host memory that `parallelism` instances in one process hold beside their state, for
    /// the process's memory plan.
    fn memory_bytes(&self, parallelism: u32) -> u64 {
        let _ = parallelism;
        0
    }

    /// What `explain` says beneath the operator: names and values.
    ///
    /// # Errors
    /// Whatever keeps it from being said.
    fn details(&self) -> Result<Vec<(&'static str, String)>> {
        Ok(Vec::new())
    }

    /// What distinguishes this operator from another configuration of the same kind, for the
    /// fingerprint of the graph. Stable between processes.
    fn describe(&self) -> String {
        self.name()
    }
}

/// Wakes one task from another thread; cheap, and harmless when the task is awake or gone.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Waker(Arc::new(wake))
    }

    /// Wakes the task.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

/// Who an instance is.
#[derive(Clone, Debug)]
pub struct SubtaskInfo {
    /// The job's name.
    pub job: Arc<str>,
    /// The operator's stable name.
    pub uid: Uid,
    /// `0..parallelism`.
    pub subtask: u32,
    /// How many instances the operator has.
    pub parallelism: u32,
    /// The number of key groups, fixed for the job's life.
    pub max_parallelism: u32,
    /// One run of the job's coordinator.
    pub generation: u64,
    /// One deployment of the tasks within a generation.
    pub attempt: u64,
    /// The nonce of the claim that made the generation: no other claim has it, whatever the job and
    /// the store.
    pub claim: Arc<str>,
}

impl SubtaskInfo {
    /// The name of this instance: no other one has it or had it, of whatever attempt, generation,
    /// job, store or machine. Generations count from 1 in every store, so the claim's nonce is part
    /// of it. What outlives an attempt is named by it: records' ids (P5), files, staging
    /// directories. Letters, digits, `-`, `_` and `.`.
    pub fn instance_name(&self) -> String {
        // 64 random bits, beside a job, a uid and a generation that would have to be the same.
        const CLAIM_BYTES: usize = 16;
        // It is part of files' names.
        const JOB_CHARACTERS_MAX: usize = 64;
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
        let job: String = self.job.chars().map(plain).take(JOB_CHARACTERS_MAX).collect();
        let claim = self.claim.get(..CLAIM_BYTES).unwrap_or(&self.claim);
        let SubtaskInfo { uid, subtask, generation, attempt, .. } = self;
        format!("{job}-{uid}-{subtask}-{generation}-{attempt}-{claim}")
    }
}

/// What an operator may reach for when it opens.
pub struct OpenContext<'a> {
    /// Who this instance is.
    pub info: &'a SubtaskInfo,
    /// What the checkpoint that is restored holds for this operator and subtask.
    pub restored: &'a RestoredState,
    /// Makes the stores that keyed state lives in.
    pub backend: &'a Arc<dyn StateBackend>,
    /// Where checkpoints are; a sink stages its segments there.
    pub storage: &'a Arc<dyn CheckpointStorage>,
    /// Counters and gauges labelled with job, uid, subtask and attempt.
    pub metrics: &'a MetricGroup,
    /// Wakes this task.
    pub waker: &'a Waker,
    /// The processing time now, in microseconds.
    pub now: Micros,
    /// Whether the operator has opened its keyed state, of one kind or the other. Starts as `false`.
    pub has_keyed_state: bool,
}

impl OpenContext<'_> {
    /// Claims the right to open keyed state: an operator has one store, for a checkpoint does not
    /// tell two apart.
    ///
    /// # Errors
    /// An internal error that names the operator, when it has opened its keyed state before.
    pub(crate) fn claim_keyed_state(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.has_keyed_state, true) {
            return Err(Error::internal(format!(
                "operator {} opens keyed state twice; an operator has either one keyed state or one \
                 columnar state, so what needs both is two operators",
                self.info.uid
            )));
        }
        Ok(())
    }

    /// Opens this operator's keyed state, restored.
    ///
    /// # Errors
    /// An external error when the store or the snapshot cannot be read.
    pub fn keyed_state(&mut self, spec: KeyedStateSpec) -> Result<KeyedState> {
        KeyedState::open(self, spec)
    }
}

/// What an operator may do while it deals with an event.
pub struct OperatorContext<'a> {
    outputs: &'a mut Vec<(OutputIndex, Batch)>,
    wake_at: &'a mut Option<Micros>,
    watermark: Watermark,
    now: Micros,
}

impl<'a> OperatorContext<'a> {
    /// A context that gathers what is emitted in `outputs`, and the earliest wake-up in `wake_at`.
    pub fn new(
        outputs: &'a mut Vec<(OutputIndex, Batch)>,
        wake_at: &'a mut Option<Micros>,
        watermark: Watermark,
        now: Micros,
    ) -> Self {
        OperatorContext { outputs, wake_at, watermark, now }
    }

    /// Emits a batch on the main output. Empty batches are dropped.
    pub fn emit(&mut self, batch: Batch) {
        self.emit_to(OutputIndex::MAIN, batch);
    }

    /// Emits a batch on an output. Empty batches are dropped.
    pub fn emit_to(&mut self, output: OutputIndex, batch: Batch) {
        if batch.row_count() > 0 {
            self.outputs.push((output, batch));
        }
    }

    /// The combined watermark of the inputs; inside [`Operator::watermark`] already the new one.
    pub fn watermark(&self) -> Watermark {
        self.watermark
    }

    /// The processing time now, in microseconds.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// Asks for [`Operator::wake`] at processing time `at` (the earliest asked for wins).
    pub fn wake_at(&mut self, at: Micros) {
        *self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Looks whether an operator takes rows of `mode` on an input.
///
/// # Errors
/// A user error that names both.
pub fn check_mode(factory: &dyn OperatorFactory, input: usize, mode: &Mode) -> Result<()> {
    if factory.takes(input, mode) {
        return Ok(());
    }
    let name = factory.name();
    Err(Error::user(format!("{name} does not know what to do with a stream that is {mode}")))
}

/// The single input schema of an operator that has exactly one.
///
/// # Errors
/// An internal error for any other number of inputs.
pub fn single_input(inputs: &[EdgeSchema]) -> Result<&EdgeSchema> {
    match inputs {
        [input] => Ok(input),
        _ => Err(Error::internal(format!("operator takes one input, the graph gives it {}", inputs.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p5_an_instances_name_is_another_one_in_another_store_though_all_numbers_agree() {
        let name = |job: &str, claim: &str| {
            let (uid, claim) = (Uid::new("sink.a").unwrap(), claim.into());
            let (subtask, parallelism, max_parallelism) = (1, 2, 128);
            let (job, generation, attempt) = (job.into(), 3, 4);
            SubtaskInfo { job, uid, subtask, parallelism, max_parallelism, generation, attempt, claim }
                .instance_name()
        };
        let here = name("jobs/usage", "0123456789abcdef0123456789abcdef");
        assert_eq!(here, "jobs_usage-sink.a-1-3-4-0123456789abcdef");
        assert_ne!(here, name("jobs/usage", "fedcba9876543210fedcba9876543210"));
    }
}
