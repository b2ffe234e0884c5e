//! Process functions over one keyed stream, with a stream that every instance gets whole: rules,
//! prices, switches. Semantics as Flink's broadcast state pattern, in a first form: one map, in
//! memory on every instance, snapshotted once (by the first instance) as union state.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thalweg_engine::checkpoint::SnapshotPart;
use thalweg_engine::operator::OperatorSnapshot;
use thalweg_engine::record::{Batch, EdgeSchema, Record, RecordReader, Timestamp, check_schema};
use thalweg_engine::state::{Codec, RestoredState};
use thalweg_engine::time::Watermark;
use thalweg_engine::{Context, Result};

use super::context::{ProcessContext, ProcessOpen, Timer};
use super::driver::{Function, Run, two_inputs};
use crate::typed::{Out, SideOutput, SideOutputs};

/// The broadcast map's name in a checkpoint.
const STATE: &str = "broadcast";
/// The input that every instance gets whole.
const BROADCAST_INPUT: usize = 1;

/// A user's logic over each key's rows and a map that a second stream keeps up to date.
///
/// Every instance must come to the same map from the same broadcast rows: `process_broadcast`
/// must depend on nothing but the row and the map. Rows of the two inputs come in no defined order.
pub trait KeyedBroadcastProcess: Clone + Send + Sync + 'static {
    /// What comes in keyed (input 0).
    type In: Record;
    /// What comes in broadcast (input 1).
    type Broadcast: Record;
    /// What goes out.
    type Out: Record;
    /// The map's keys.
    type Key: Ord + Clone + Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The map's values.
    type Value: Clone + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Called once before anything else: registers the keyed states.
    ///
    /// # Errors
    /// Whatever keeps the function from starting; the job fails with it.
    fn open(&mut self, cx: &mut ProcessOpen<'_>) -> Result<()> {
        let _ = cx;
        Ok(())
    }

    /// Takes a row of the current key; the map can be looked at.
    ///
    /// # Errors
    /// Whatever fails the job.
    fn process(
        &mut self,
        row: <Self::In as Record>::Row<'_>,
        map: &BTreeMap<Self::Key, Self::Value>,
        cx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<()>;

    /// Takes a broadcast row, in every instance; the map can be changed.
    ///
    /// # Errors
    /// Whatever fails the job.
    fn process_broadcast(
        &mut self,
        row: <Self::Broadcast as Record>::Row<'_>,
        map: &mut BTreeMap<Self::Key, Self::Value>,
        cx: &mut BroadcastContext<'_, Self::Out>,
    ) -> Result<()>;

    /// A timer is due; its key is current.
    ///
    /// # Errors
    /// Whatever fails the job.
    fn on_timer(
        &mut self,
        timer: Timer,
        map: &BTreeMap<Self::Key, Self::Value>,
        cx: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<()> {
        let _ = (timer, map, cx);
        Ok(())
    }

    /// The side outputs that the function emits to.
    fn side_outputs(&self) -> SideOutputs {
        SideOutputs::none()
    }
}

/// What a process function may do with a broadcast row: no key is current. What it emits is
/// emitted by every instance.
pub struct BroadcastContext<'a, U: Record> {
    out: &'a mut Out<U>,
    watermark: Watermark,
}

impl<U: Record> BroadcastContext<'_, U> {
    /// Emits a record, from every instance.
    pub fn emit(&mut self, record: U) {
        self.out.emit(record);
    }

    /// Emits a record on a side output, from every instance.
    pub fn emit_to<S: Record>(&mut self, side: SideOutput<S>, record: S) {
        self.out.emit_to(side, record);
    }

    /// The watermark of both inputs.
    pub fn watermark(&self) -> Timestamp {
        Timestamp(self.watermark.0)
    }
}

#[derive(Clone)]
pub(super) struct WithBroadcast<P: KeyedBroadcastProcess> {
    function: P,
    map: BTreeMap<P::Key, P::Value>,
    /// Whether this instance is the one that snapshots the map.
    writes_map: bool,
}

impl<P: KeyedBroadcastProcess> WithBroadcast<P> {
    pub fn new(function: P) -> Self {
        WithBroadcast { function, map: BTreeMap::new(), writes_map: false }
    }
}

impl<P: KeyedBroadcastProcess> Function for WithBroadcast<P> {
    type Out = P::Out;

    fn name(&self) -> &'static str {
        "process with broadcast"
    }

    fn sides(&self) -> SideOutputs {
        self.function.side_outputs()
    }

    fn check(&self, inputs: &[EdgeSchema]) -> Result<()> {
        let [keyed, broadcast] = two_inputs(inputs)?;
        check_schema::<P::In>(&keyed.schema).context(|| "keyed input".to_string())?;
        check_schema::<P::Broadcast>(&broadcast.schema).context(|| "broadcast input".to_string())
    }

    fn open(&mut self, cx: &mut ProcessOpen<'_>, restored: &RestoredState) -> Result<()> {
        self.writes_map = cx.info().subtask == 0;
        for item in restored.items(STATE) {
            let (key, value): (P::Key, P::Value) =
                Codec::decode(item).context(|| "broadcast state".to_string())?;
            self.map.insert(key, value);
        }
        self.function.open(cx)
    }

    fn rows(&mut self, input: usize, batch: &Batch, from: usize, run: &mut Run<'_, P::Out>) -> Result<usize> {
        let WithBroadcast { function, map, .. } = self;
        if input != BROADCAST_INPUT {
            let reader = RecordReader::<P::In>::new(batch.records())?;
            return run.keyed_rows(input, batch, from, |row, cx| function.process(reader.row(row), map, cx));
        }
        let reader = RecordReader::<P::Broadcast>::new(batch.records())?;
        let mut next = from;
        while next < reader.row_count() && !run.out.is_full() {
            let mut cx = BroadcastContext { out: run.out, watermark: run.watermark };
            function.process_broadcast(reader.row(next), map, &mut cx)?;
            next += 1;
        }
        Ok(next)
    }

    fn on_timer(&mut self, timer: Timer, cx: &mut ProcessContext<'_, P::Out>) -> Result<()> {
        self.function.on_timer(timer, &self.map, cx)
    }

    fn snapshot(&self, snapshot: &mut OperatorSnapshot) -> Result<()> {
        if self.writes_map {
            let items = self.map.iter().map(|entry| Codec::to_vec(&entry)).collect::<Result<_>>()?;
            snapshot.parts.push(SnapshotPart::Union { name: STATE.to_string(), items });
        }
        Ok(())
    }
}
