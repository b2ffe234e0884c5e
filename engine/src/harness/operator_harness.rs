//! The harness itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::instance::{Effects, Instance};
use super::scratch::Scratch;
use super::{HarnessBuilder, HarnessInput, HarnessSnapshot, PendingSnapshot};
use crate::checkpoint::{Cancellation, CheckpointId, CheckpointStorage, Manifest, SnapshotSite};
use crate::graph::Uid;
use crate::metrics::Registry;
use crate::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OutputIndex, Step, SubtaskInfo,
};
use crate::record::{Batch, EdgeSchema, Record, RecordBuilder, RecordReader};
use crate::state::{RestoredState, StateBackend, StateIdentity};
use crate::time::{InputWatermarks, Micros, Watermark};
use crate::{Context, Error, Result};

/// What came out of an output, in order.
#[derive(Clone, Debug)]
pub enum Emitted {
    /// Rows.
    Batch(Batch),
    /// The watermark rose, after the operator was done with it.
    Watermark(Watermark),
}

/// Where the operator runs.
pub(super) struct Site {
    pub uid: Uid,
    pub parallelism: u32,
    pub max_parallelism: u32,
    pub backend: Arc<dyn StateBackend>,
    pub storage: Arc<dyn CheckpointStorage>,
    /// Goes when the harness goes.
    pub _scratch: Scratch,
}

/// One operator, with everything around it in the test's hands.
pub struct OperatorHarness {
    inputs: Vec<HarnessInput>,
    ended: Vec<bool>,
    outputs: Vec<EdgeSchema>,
    identity: Option<StateIdentity>,
    site: Site,
    instances: Vec<Instance>,
    watermarks: InputWatermarks,
    now: Micros,
    emitted: BTreeMap<OutputIndex, Vec<Emitted>>,
    step_rows_max: usize,
    pushed: usize,
    generation: u64,
    checkpoints: u64,
    metrics: Registry,
    /// See [`OperatorHarness::begin_watermark`]: the instances that are not done with it.
    firing: Option<(Watermark, Vec<usize>)>,
    /// The watermark that all instances were given, and the one that was passed on.
    given: Watermark,
    passed_on: Watermark,
}

impl OperatorHarness {
    /// One instance, opened fresh. For more, see [`OperatorHarness::builder`].
    ///
    /// # Errors
    /// What the factory or the instance refuses.
    pub fn new(factory: impl OperatorFactory + 'static, inputs: Vec<HarnessInput>) -> Result<Self> {
        Self::builder(factory, inputs).open()
    }

    /// Sets a harness up.
    pub fn builder(factory: impl OperatorFactory + 'static, inputs: Vec<HarnessInput>) -> HarnessBuilder {
        HarnessBuilder::new(Arc::new(factory), inputs)
    }

    pub(super) fn start(
        factory: &dyn OperatorFactory,
        inputs: Vec<HarnessInput>,
        site: Site,
        now: Micros,
        snapshot: Option<&HarnessSnapshot>,
    ) -> Result<Self> {
        let edges: Vec<_> = inputs.iter().map(|input| input.edge.clone()).collect();
        let mut harness = OperatorHarness {
            watermarks: InputWatermarks::new(inputs.len()),
            ended: vec![false; inputs.len()],
            inputs,
            outputs: factory.outputs(&edges)?,
            identity: factory.identity(&edges),
            instances: Vec::new(),
            now,
            emitted: BTreeMap::new(),
            step_rows_max: 0,
            pushed: 0,
            generation: snapshot.map_or(1, |snapshot| snapshot.manifest.checkpoint.generation + 1),
            checkpoints: snapshot.map_or(0, |snapshot| snapshot.manifest.checkpoint.number),
            metrics: Registry::default(),
            firing: None,
            given: Watermark::MIN,
            passed_on: Watermark::MIN,
            site,
        };
        if let Some(HarnessSnapshot { manifest, uid, .. }) = snapshot {
            harness.check_identity(manifest.operators.get(uid).and_then(|held| held.identity.as_ref()))?;
        }
        for subtask in 0..harness.site.parallelism {
            let Site { uid, parallelism, max_parallelism, .. } = &harness.site;
            let restored = match snapshot {
                Some(HarnessSnapshot { manifest, .. }) => {
                    manifest.restored_for(uid, subtask, *parallelism, *max_parallelism)?
                }
                None => RestoredState::default(),
            };
            harness.open_instance(factory, subtask, &restored)?;
        }
        harness.settle()?;
        Ok(harness)
    }

    /// Refuses the state of another operator, as a job does.
    fn check_identity(&self, held: Option<&StateIdentity>) -> Result<()> {
        let differences = held.zip(self.identity.as_ref()).map(|(held, own)| held.differences(own));
        match differences {
            Some(differences) if !differences.is_empty() => {
                Err(Error::user(format!("the snapshot is of another state: {}", differences.join(", "))))
            }
            _ => Ok(()),
        }
    }

    fn open_instance(
        &mut self,
        factory: &dyn OperatorFactory,
        subtask: u32,
        restored: &RestoredState,
    ) -> Result<()> {
        let info = SubtaskInfo {
            job: "harness".into(),
            uid: self.site.uid.clone(),
            subtask,
            parallelism: self.site.parallelism,
            max_parallelism: self.site.max_parallelism,
            generation: self.generation,
            attempt: 1,
            claim: "harness".into(),
        };
        let mut instance = Instance::new(factory.create()?, info.clone());
        let metrics = self.metrics.group(vec![("subtask", subtask.to_string())]);
        let mut cx = OpenContext {
            info: &info,
            restored,
            backend: &self.site.backend,
            storage: &self.site.storage,
            metrics: &metrics,
            waker: &instance.waker(),
            now: self.now,
            has_keyed_state: false,
        };
        instance.operator.open(&mut cx).context(|| format!("open of subtask {subtask}"))?;
        self.instances.push(instance);
        Ok(())
    }

    /// Pushes records into an input.
    ///
    /// # Errors
    /// What the operator fails with, or a breach of its contract.
    pub fn push<T: Record>(&mut self, input: usize, records: impl IntoIterator<Item = T>) -> Result<()> {
        let mut rows = RecordBuilder::<T>::default();
        records.into_iter().for_each(|record| rows.push(&record));
        self.push_batch(input, rows.finish()?)
    }

    /// Pushes a batch into an input.
    ///
    /// # Errors
    /// What the operator fails with, or a breach of its contract; a user error when the batch does
    /// not have the input's schema, or the input has ended.
    pub fn push_batch(&mut self, input: usize, records: RecordBatch) -> Result<()> {
        let edge = &self.open_input(input)?.edge;
        if records.schema().fields() != edge.schema.fields() {
            return Err(Error::user(format!(
                "input {input} takes {:?}, the batch has {:?}",
                edge.schema.fields(),
                records.schema().fields()
            )));
        }
        let Site { parallelism, max_parallelism, .. } = self.site;
        let shares =
            self.inputs[input].route(Batch::new(records), parallelism, max_parallelism, self.pushed)?;
        self.pushed += 1;
        for (instance, batch) in shares {
            self.drive(instance, |operator, cx| operator.process(input, batch, cx))?;
        }
        self.settle()
    }

    /// Raises an input's watermark. The operator sees the minimum over its active inputs.
    ///
    /// # Errors
    /// What the operator fails with; a user error when the watermark would go back.
    pub fn watermark(&mut self, input: usize, to: impl Into<Micros>) -> Result<()> {
        self.open_input(input)?;
        let to = Watermark(to.into());
        let before = self.watermarks.current();
        let combined = self.watermarks.update(input, to);
        if combined.is_none() && to < before {
            return Err(Error::user(format!("a watermark cannot go back to {}", to.0)));
        }
        self.forward(combined)
    }

    /// Raises an input's watermark, but lets each instance make only so many steps for it: a
    /// snapshot may be taken in the middle, if the operator says so
    /// ([`Operator::is_interruptible`]). [`OperatorHarness::finish_watermark`] goes on.
    ///
    /// # Errors
    /// What the operator fails with; a user error when the watermark does not rise.
    pub fn begin_watermark(&mut self, input: usize, to: impl Into<Micros>, steps: usize) -> Result<()> {
        self.open_input(input)?;
        let risen = self.watermarks.update(input, Watermark(to.into()));
        let watermark = risen.ok_or_else(|| Error::user("the watermark does not rise"))?;
        let mut unfinished = Vec::new();
        for (index, instance) in self.instances.iter_mut().enumerate() {
            let fire =
                |operator: &mut dyn Operator, cx: &mut OperatorContext<'_>| operator.watermark(watermark, cx);
            let (effects, step) = instance.steps(&self.outputs, watermark, self.now, Some(fire), steps)?;
            for (output, batch) in effects.batches {
                self.emitted.entry(output).or_default().push(Emitted::Batch(batch));
            }
            if step == Step::More {
                unfinished.push(index);
            }
        }
        self.firing = Some((watermark, unfinished));
        Ok(())
    }

    /// Lets the operator finish what [`OperatorHarness::begin_watermark`] began.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn finish_watermark(&mut self) -> Result<()> {
        let Some((watermark, unfinished)) = self.firing.take() else { return Ok(()) };
        for instance in unfinished {
            self.drive(instance, |operator, cx| operator.resume(cx))?;
        }
        self.emit_watermark(watermark)
    }

    /// Makes an input idle (`false`) or active again.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn set_active(&mut self, input: usize, active: bool) -> Result<()> {
        self.open_input(input)?;
        if !active {
            self.flush()?;
        }
        let combined = self.watermarks.set_active(input, active);
        self.forward(combined)
    }

    fn forward(&mut self, combined: Option<Watermark>) -> Result<()> {
        let Some(watermark) = combined else {
            return Ok(());
        };
        for instance in 0..self.instances.len() {
            self.drive(instance, |operator, cx| operator.watermark(watermark, cx))?;
        }
        self.emit_watermark(watermark)
    }

    fn emit_watermark(&mut self, watermark: Watermark) -> Result<()> {
        self.given = watermark;
        self.settle()
    }

    /// Passes on what the operator lets pass of the watermark that all instances were given.
    fn release_watermark(&mut self) {
        let bounds = self.instances.iter().filter_map(|instance| instance.operator.watermark_bound());
        let watermark = bounds.fold(self.given, Watermark::min);
        if self.passed_on < watermark {
            self.passed_on = watermark;
            for output in 0..self.outputs.len() {
                let emitted = self.emitted.entry(OutputIndex(output as u16)).or_default();
                emitted.push(Emitted::Watermark(watermark));
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        (0..self.instances.len())
            .try_for_each(|index| self.drive(index, |operator, cx| operator.flush(cx)))?;
        self.settle()
    }

    /// Waits until work elsewhere uses the operator's waker, and lets it deal with that. Answers
    /// whether it did within the limit.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn wait_woken(&mut self, limit: std::time::Duration) -> Result<bool> {
        let until = std::time::Instant::now() + limit;
        while std::time::Instant::now() < until {
            for index in 0..self.instances.len() {
                if self.instances[index].wait_woken(std::time::Duration::from_micros(100)) {
                    self.drive(index, |operator, cx| operator.wake(cx))?;
                    self.settle()?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Ends an input: its watermark rises to the highest, then its data ends.
    ///
    /// # Errors
    /// What the operator fails with; a user error when the input has ended already.
    pub fn end(&mut self, input: usize) -> Result<()> {
        self.watermark(input, Watermark::MAX.0)?;
        for instance in 0..self.instances.len() {
            self.drive(instance, |operator, cx| operator.end_of_data(input, cx))?;
        }
        self.ended[input] = true;
        self.settle()
    }

    /// Moves processing time forward, stopping wherever the operator asked to be woken.
    ///
    /// # Errors
    /// What the operator fails with; a user error when time would go back.
    pub fn advance_to(&mut self, now: impl Into<Micros>) -> Result<()> {
        let now = now.into();
        if now < self.now {
            return Err(Error::user("processing time cannot go back"));
        }
        loop {
            let due = self.instances.iter().enumerate().filter_map(|(i, one)| Some((one.wake_at?, i))).min();
            let Some((at, instance)) = due.filter(|(at, _)| *at <= now) else {
                self.now = now;
                return Ok(());
            };
            self.now = self.now.max(at);
            self.instances[instance].wake_at = None;
            self.drive(instance, |operator, cx| operator.wake(cx))?;
            self.settle()?;
        }
    }

    /// Processing time, in microseconds.
    pub fn now(&self) -> Micros {
        self.now
    }

    /// What came out of `output` since the last look, in order.
    pub fn take(&mut self, output: u16) -> Vec<Emitted> {
        self.emitted.remove(&OutputIndex(output)).unwrap_or_default()
    }

    /// The batches that came out of `output` since the last look.
    pub fn take_batches(&mut self, output: u16) -> Vec<RecordBatch> {
        let batches = self.take(output).into_iter().filter_map(|emitted| match emitted {
            Emitted::Batch(batch) => Some(batch.into_records()),
            Emitted::Watermark(_) => None,
        });
        batches.collect()
    }

    /// The records that came out of `output` since the last look.
    ///
    /// # Errors
    /// A user error when the output's rows are not such records.
    pub fn take_records<T: Record>(&mut self, output: u16) -> Result<Vec<T>> {
        let mut records = Vec::new();
        for batch in self.take_batches(output) {
            records.extend(RecordReader::<T>::new(&batch)?.rows().map(T::from_row));
        }
        Ok(records)
    }

    /// The most rows that any single step emitted so far.
    pub fn step_rows_max(&self) -> usize {
        self.step_rows_max
    }

    /// What the operator counts.
    pub fn metrics(&self) -> &Registry {
        &self.metrics
    }

    /// Takes a checkpoint: barrier, files, completion.
    ///
    /// # Errors
    /// What the operator or the store fails with.
    pub fn snapshot(&mut self) -> Result<HarnessSnapshot> {
        let pending = self.begin_snapshot()?;
        self.complete_snapshot(pending)
    }

    /// Puts a barrier through the operator. Rows may follow before the snapshot is completed.
    ///
    /// # Errors
    /// What the operator fails with; an internal error in the middle of a watermark when the
    /// operator does not take a barrier there.
    pub fn begin_snapshot(&mut self) -> Result<PendingSnapshot> {
        let mut instances = self.instances.iter();
        if self.firing.is_some() && !instances.all(|instance| instance.operator.is_interruptible()) {
            return Err(Error::internal("the operator takes no barrier in the middle of a watermark"));
        }
        self.flush()?;
        self.checkpoints += 1;
        let checkpoint = CheckpointId { generation: self.generation, number: self.checkpoints };
        let instances = self.instances.iter_mut().map(|instance| instance.operator.snapshot(checkpoint));
        Ok(PendingSnapshot { checkpoint, instances: instances.collect::<Result<_>>()? })
    }

    /// Writes what the barrier froze and tells the operator that the checkpoint is complete.
    ///
    /// # Errors
    /// What the operator or the store fails with.
    pub fn complete_snapshot(&mut self, pending: PendingSnapshot) -> Result<HarnessSnapshot> {
        let checkpoint = pending.checkpoint;
        let Site { uid, parallelism, max_parallelism, .. } = &self.site;
        let mut manifest = Manifest::new("harness", checkpoint, 0, *max_parallelism);
        manifest.add_operator(uid, *parallelism, self.identity.clone());
        for (instance, snapshot) in self.instances.iter().zip(pending.instances) {
            let subtask = instance.info.subtask;
            let site = SnapshotSite {
                storage: self.site.storage.clone(),
                job_path: "harness".to_string(),
                checkpoint,
                uid: self.site.uid.clone(),
                subtask,
                known: Arc::new(BTreeMap::new()),
                scratch: self.site.backend.scratch(&format!("harness-{checkpoint}-{subtask}"))?,
                cancelled: Cancellation::default(),
            };
            let own = snapshot.make(&site)?;
            if self.identity.is_none() && !own.is_empty() {
                return Err(Error::internal("the operator adds state to a snapshot, and has no identity"));
            }
            manifest.add_parts(uid, subtask, own);
        }
        for instance in &mut self.instances {
            instance.operator.checkpoint_completed(checkpoint)?;
        }
        Ok(HarnessSnapshot { manifest, uid: self.site.uid.clone(), storage: self.site.storage.clone() })
    }

    /// Drops what the barrier froze and tells the operator that the checkpoint will never be.
    ///
    /// # Errors
    /// What the operator fails with.
    pub fn abort_snapshot(&mut self, pending: PendingSnapshot) -> Result<()> {
        let PendingSnapshot { checkpoint, instances } = pending;
        drop(instances);
        let mut instances = self.instances.iter_mut();
        instances.try_for_each(|instance| instance.operator.checkpoint_aborted(checkpoint))
    }

    fn open_input(&self, input: usize) -> Result<&HarnessInput> {
        match self.inputs.get(input) {
            Some(_) if self.firing.is_some() => Err(Error::user("a watermark is not finished")),
            Some(_) if self.ended[input] => Err(Error::user(format!("input {input} has ended"))),
            Some(open) => Ok(open),
            None => Err(Error::user(format!("there is no input {input}"))),
        }
    }

    fn drive(
        &mut self,
        instance: usize,
        event: impl FnOnce(&mut dyn Operator, &mut OperatorContext<'_>) -> Result<Step>,
    ) -> Result<()> {
        let watermark = self.watermarks.current();
        let Effects { batches, step_rows_max } =
            self.instances[instance].drive(&self.outputs, watermark, self.now, event)?;
        self.step_rows_max = self.step_rows_max.max(step_rows_max);
        if !batches.is_empty() && !self.ended.is_empty() && self.ended.iter().all(|ended| *ended) {
            return Err(Error::internal("the operator emits after the end of its inputs"));
        }
        for (output, batch) in batches {
            self.emitted.entry(output).or_default().push(Emitted::Batch(batch));
        }
        Ok(())
    }

    /// Wakes the instances whose waker was used, until none is.
    fn settle(&mut self) -> Result<()> {
        while let Some(woken) = self.instances.iter().position(Instance::take_woken) {
            self.drive(woken, |operator, cx| operator.wake(cx))?;
        }
        self.release_watermark();
        Ok(())
    }
}
