//! The keyed-count job: numbers from bounded splits, counted per key in keyed state, delivered to a
//! ledger that knows each epoch once, by way of segments beside the checkpoint. Its output is
//! exactly once or the ledger shows it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use thalweg_engine::checkpoint::{CheckpointId, CheckpointStorage, JobLayout, SnapshotPart, SnapshotSite};
use thalweg_engine::graph::{Environment, Graph, Partitioner, Stream};
use thalweg_engine::operator::*;
use thalweg_engine::record::{Batch, EdgeSchema, time_type};
use thalweg_engine::sink::{Committable, Committer};
use thalweg_engine::source::*;
use thalweg_engine::state::{KeyedState, KeyedStateSpec, StateIdentity, ValueState};
use thalweg_engine::time::{Watermark, WatermarkStrategy};
use thalweg_engine::{Error, Result};

pub const KEYS: i64 = 13;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, false),
        Field::new("value", DataType::Int64, false),
        Field::new("time", time_type(), false),
    ]))
}

fn batch(keys: Vec<i64>, values: Vec<i64>, times: Vec<i64>) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(keys)),
        Arc::new(Int64Array::from(values)),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("+00:00")),
    ];
    Batch::new(RecordBatch::try_new(schema(), columns).unwrap())
}

/// Split `s` holds rows `0..rows[s]`; row `i` has key `(i * 7 + s) % KEYS` and time `i`.
#[derive(Clone)]
pub struct Numbers {
    pub rows: Vec<i64>,
    pub rows_per_poll: i64,
}

fn split_id(index: usize) -> SplitId {
    SplitId(format!("numbers/{index}").into())
}

impl Source for Numbers {
    fn name(&self) -> String {
        "numbers".into()
    }
    fn output(&self) -> Result<EdgeSchema> {
        Ok(EdgeSchema::new(schema()))
    }
    fn identity(&self) -> StateIdentity {
        StateIdentity::of("numbers")
    }
    fn enumerator(&self, restored: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        let finished = restored.map(|state| serde_json::from_slice(state).unwrap()).unwrap_or_default();
        Ok(Box::new(NumbersEnumerator { count: self.rows.len(), finished }))
    }
    fn reader(&self, _cx: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(NumbersReader { source: self.clone(), splits: BTreeMap::new(), no_more: false }))
    }
}

/// Readers answer for the splits that they hold, the enumerator for those that are finished.
struct NumbersEnumerator {
    count: usize,
    finished: Vec<SplitState>,
}

impl Enumerator for NumbersEnumerator {
    fn handle(&mut self, event: EnumeratorEvent) -> Result<Vec<EnumeratorAction>> {
        let (parallelism, splits) = match event {
            EnumeratorEvent::Started { parallelism, splits } => (parallelism, splits),
            EnumeratorEvent::Finished { split, .. } => {
                self.finished.push(split);
                return Ok(Vec::new());
            }
            _ => return Ok(Vec::new()),
        };
        let held = self.finished.iter().cloned().chain(splits);
        let positions: BTreeMap<_, _> = held.map(|split| (split.id, split.position)).collect();
        let mut actions: Vec<_> =
            (0..parallelism).map(|subtask| (subtask, Vec::new())).collect::<Vec<(u32, Vec<SplitState>)>>();
        for index in 0..self.count {
            let id = split_id(index);
            let position = positions.get(&id).cloned().unwrap_or_else(|| 0i64.to_be_bytes().to_vec());
            actions[index % parallelism as usize].1.push(SplitState { id, position });
        }
        let mut actions: Vec<_> = actions
            .into_iter()
            .map(|(subtask, splits)| EnumeratorAction::Assign { subtask, splits })
            .collect();
        actions.push(EnumeratorAction::NoMoreSplits);
        Ok(actions)
    }
    fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(&self.finished).unwrap()
    }
}

struct NumbersReader {
    source: Numbers,
    splits: BTreeMap<SplitId, i64>,
    no_more: bool,
}

impl SourceReader for NumbersReader {
    fn add_splits(&mut self, splits: Vec<SplitState>, _cx: &mut ReaderContext<'_>) -> Result<()> {
        for split in splits {
            self.splits.insert(split.id, i64::from_be_bytes(split.position.try_into().unwrap()));
        }
        Ok(())
    }
    fn release_splits(&mut self, _: &[SplitId], _: &mut ReaderContext<'_>) -> Result<Vec<SplitState>> {
        Err(Error::internal("not asked for"))
    }
    fn no_more_splits(&mut self) {
        self.no_more = true;
    }
    fn poll(&mut self, cx: &mut ReaderContext<'_>) -> Result<ReaderStatus> {
        let Some(id) = self.splits.keys().min_by_key(|id| self.splits[*id]).cloned() else {
            return Ok(if self.no_more { ReaderStatus::Finished } else { ReaderStatus::Waiting(None) });
        };
        let index: usize = id.0.rsplit('/').next().unwrap().parse().unwrap();
        let from = self.splits[&id];
        let to = (from + self.source.rows_per_poll).min(self.source.rows[index]);
        if from < to {
            let keys = (from..to).map(|i| (i * 7 + index as i64) % KEYS).collect();
            cx.emit(&id, batch(keys, (from..to).collect(), (from..to).collect()));
        }
        if to == self.source.rows[index] {
            self.splits.remove(&id);
            let position = to.to_be_bytes().to_vec();
            cx.effect(ReaderEffect::SplitFinished(SplitState { id, position }));
        } else {
            self.splits.insert(id, to);
        }
        Ok(ReaderStatus::Ready)
    }
    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Vec<SplitState>> {
        let state =
            |(id, at): (&SplitId, &i64)| SplitState { id: id.clone(), position: at.to_be_bytes().to_vec() };
        Ok(self.splits.iter().map(state).collect())
    }
}

fn hash(key: i64) -> u64 {
    (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7
}

/// Attaches a hash made from the key.
pub struct HashKey;

impl OperatorFactory for HashKey {
    fn name(&self) -> String {
        "hash key".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(HashKey))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl Operator for HashKey {
    fn process(&mut self, _: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let keys = batch.records().column(0).as_primitive::<Int64Type>().clone();
        let hashes = UInt64Array::from_iter_values(keys.values().iter().map(|&key| hash(key)));
        cx.emit(batch.with_key_hashes(hashes));
        Ok(Step::Done)
    }
}

/// Counts rows per key and emits `(key, count)` for each row.
pub struct Count;

#[derive(Default)]
struct Counter {
    state: Option<(KeyedState, ValueState<i64>)>,
    watermark: Option<Watermark>,
}

impl Counter {
    fn keyed(&mut self) -> &mut KeyedState {
        &mut self.state.as_mut().unwrap().0
    }
}

impl OperatorFactory for Count {
    fn name(&self) -> String {
        "count".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::<Counter>::default())
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        Some(StateIdentity::of("count"))
    }
}

impl Operator for Counter {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let mut keyed = cx.keyed_state(KeyedStateSpec::default())?;
        let counts = keyed.value("count")?;
        self.state = Some((keyed, counts));
        Ok(())
    }
    fn process(&mut self, _: usize, rows: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        let (keyed, state) = self.state.as_mut().unwrap();
        let keys = rows.records().column(0).as_primitive::<Int64Type>();
        let mut counts = Vec::new();
        for &key in keys.values() {
            keyed.set_current_key(hash(key), &key.to_be_bytes());
            counts.push(state.modify(keyed, |count| *count.insert(count.unwrap_or(0) + 1))?);
        }
        let times = vec![0; counts.len()];
        cx.emit(batch(keys.values().to_vec(), counts, times));
        Ok(Step::Done)
    }
    fn watermark(&mut self, watermark: Watermark, _: &mut OperatorContext<'_>) -> Result<Step> {
        assert!(self.watermark < Some(watermark), "watermarks rise");
        self.watermark = Some(watermark);
        Ok(Step::Done)
    }
    fn end_of_data(&mut self, _: usize, _: &mut OperatorContext<'_>) -> Result<Step> {
        assert_eq!(self.watermark, Some(Watermark::MAX), "the highest watermark comes before the end");
        Ok(Step::Done)
    }
    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        self.keyed().snapshot(checkpoint)
    }
    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.keyed().checkpoint_completed(checkpoint)
    }
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.keyed().checkpoint_aborted(checkpoint)
    }
}

pub type Rows = Vec<(i64, i64)>;

/// The world outside: what was committed, by uid, and how often each epoch was.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<String, Rows>>>);

impl Ledger {
    pub fn rows(&self) -> Rows {
        let mut rows: Rows = self.0.lock().unwrap().values().flatten().copied().collect();
        rows.sort_unstable();
        rows
    }
}

/// Reads of a segment before a commit is given up.
const SEGMENT_READS_MAX: usize = 50;

impl Committer for Ledger {
    fn commit(
        &self,
        committables: &[Committable],
        storage: &dyn CheckpointStorage,
        _cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        for committable in committables {
            let epoch = String::from_utf8(committable.payload.clone()).unwrap();
            let mut segment = storage.get(&committable.objects[0]);
            for _ in 1..SEGMENT_READS_MAX {
                segment = segment.or_else(|_| storage.get(&committable.objects[0]));
            }
            let segment = segment?.unwrap_or_else(|| panic!("the segment of {epoch} was deleted"));
            let rows: Rows = serde_json::from_slice(&segment).unwrap();
            let before = self.0.lock().unwrap().insert(epoch.clone(), rows.clone());
            assert!(before.is_none_or(|before| before == rows), "epoch {epoch} committed with other rows");
        }
        Ok(())
    }
}

/// What an instance of the sink holds at most before it says that it is full, and what all of
/// them came to.
#[derive(Clone, Default)]
pub struct Staging {
    pub rows_max: Option<usize>,
    /// The most rows that one instance held.
    pub most: Arc<AtomicUsize>,
}

#[derive(Default)]
pub struct LedgerSink(pub Staging);

/// The rows of an epoch, and where in the store they are: uploaded once, for whichever checkpoint
/// comes to it first, and named by every one until one of them is complete.
struct Sealed {
    epoch: String,
    rows: Rows,
    segment: Mutex<Option<String>>,
}

impl Sealed {
    fn stage(&self, site: &SnapshotSite) -> Result<SnapshotPart> {
        let mut segment = self.segment.lock().unwrap();
        let path = match segment.take() {
            Some(path) => path,
            None => {
                let name = format!("segment-{}", self.epoch);
                let layout = JobLayout::new(&site.job_path)?;
                let path = layout.private(site.checkpoint, &site.uid, site.subtask, &name)?;
                site.storage.put(&path, serde_json::to_vec(&self.rows).unwrap().into())?;
                path
            }
        };
        *segment = Some(path.clone());
        let payload = self.epoch.clone().into_bytes();
        Ok(SnapshotPart::Committable(Committable { uid: site.uid.clone(), payload, objects: vec![path] }))
    }
}

#[derive(Default)]
struct LedgerWriter {
    staging: Staging,
    instance: String,
    rows: Rows,
    /// Prepared and neither complete nor aborted.
    prepared: BTreeMap<CheckpointId, Vec<Arc<Sealed>>>,
    carried: Vec<Arc<Sealed>>,
    /// How many rows were sealed for each checkpoint that is not complete.
    sealed: BTreeMap<CheckpointId, usize>,
}

impl LedgerWriter {
    fn held(&self) -> usize {
        self.rows.len() + self.sealed.values().sum::<usize>()
    }
}

impl OperatorFactory for LedgerSink {
    fn name(&self) -> String {
        "ledger".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(LedgerWriter { staging: self.0.clone(), ..LedgerWriter::default() }))
    }
    fn outputs(&self, _: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(Vec::new())
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        Some(StateIdentity::of("ledger"))
    }
}

impl Operator for LedgerWriter {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        let info = cx.info;
        self.instance = format!("{}-{}-{}-{}", info.uid, info.subtask, info.generation, info.attempt);
        Ok(())
    }
    fn process(&mut self, _: usize, rows: Batch, _: &mut OperatorContext<'_>) -> Result<Step> {
        let column =
            |index: usize| rows.records().column(index).as_primitive::<Int64Type>().values().to_vec();
        self.rows.extend(column(0).into_iter().zip(column(1)));
        assert_eq!(rows.records().column(0).null_count(), 0);
        self.staging.most.fetch_max(self.held(), Ordering::Relaxed);
        Ok(Step::Done)
    }
    fn is_full(&self) -> bool {
        self.staging.rows_max.is_some_and(|rows_max| self.held() >= rows_max)
    }
    fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let rows = std::mem::take(&mut self.rows);
        self.sealed.insert(checkpoint, rows.len());
        let mut sealed = std::mem::take(&mut self.carried);
        if !rows.is_empty() {
            let epoch = format!("{}-{checkpoint}", self.instance);
            sealed.push(Arc::new(Sealed { epoch, rows, segment: Mutex::default() }));
        }
        self.prepared.insert(checkpoint, sealed.clone());
        let stage = move |site: &SnapshotSite| -> Result<Vec<SnapshotPart>> {
            sealed.iter().map(|sealed| sealed.stage(site)).collect()
        };
        Ok(OperatorSnapshot { tasks: vec![Box::new(stage)], ..OperatorSnapshot::default() })
    }
    fn checkpoint_completed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.prepared.remove(&checkpoint);
        self.sealed.retain(|&sealed, _| sealed > checkpoint);
        Ok(())
    }
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) -> Result<()> {
        self.carried.extend(self.prepared.remove(&checkpoint).into_iter().flatten());
        Ok(())
    }
}

pub fn keyed_count(source: Numbers, ledger: &Ledger) -> Graph {
    keyed_count_through(source, |numbers| numbers, Arc::new(ledger.clone()))
}

/// The same with something between source and count, and any committer.
pub fn keyed_count_through(
    source: Numbers,
    through: impl FnOnce(Stream) -> Stream,
    committer: Arc<dyn Committer>,
) -> Graph {
    let env = Environment::new();
    count_and_deliver(&through(numbers(&env, source)), &[], LedgerSink::default(), committer);
    env.build().unwrap()
}

/// The same with a sink that is full at times.
pub fn keyed_count_into(source: Numbers, ledger: &Ledger, staging: Staging) -> Graph {
    let env = Environment::new();
    count_and_deliver(&numbers(&env, source), &[], LedgerSink(staging), Arc::new(ledger.clone()));
    env.build().unwrap()
}

/// The same over two sources, with the uids `short` and `long`, which end when each is read.
pub fn keyed_count_of_two(short: Numbers, long: Numbers, ledger: &Ledger) -> Graph {
    let env = Environment::new();
    let (short, long) = (numbers(&env, short).uid("short"), numbers(&env, long).uid("long"));
    count_and_deliver(&short, &[&long], LedgerSink::default(), Arc::new(ledger.clone()));
    env.build().unwrap()
}

/// Source and sink in one task: rows as they are.
pub fn straight(source: Numbers, ledger: &Ledger, staging: Staging) -> Graph {
    let env = Environment::new();
    let sink = Arc::new(LedgerSink(staging));
    numbers(&env, source).sink_dyn(sink, Some(Arc::new(ledger.clone()))).uid("ledger");
    env.build().unwrap()
}

/// What [`straight`] must deliver.
pub fn expected_straight(source: &Numbers) -> Rows {
    let of_split = |(split, &count): (usize, &i64)| {
        (0..count).map(move |i| ((i * 7 + split as i64) % KEYS, i)).collect::<Rows>()
    };
    let mut rows: Rows = source.rows.iter().enumerate().flat_map(of_split).collect();
    rows.sort_unstable();
    rows
}

fn numbers(env: &Environment, source: Numbers) -> Stream {
    env.source(source).watermarks("time", WatermarkStrategy::bounded_out_of_order(0))
}

fn count_and_deliver(first: &Stream, others: &[&Stream], sink: LedgerSink, committer: Arc<dyn Committer>) {
    let hashed = first.union_apply(others, Arc::new(HashKey));
    let counted = hashed.apply_dyn(Arc::new(Count), Some(Partitioner::Hash)).uid("count");
    counted.sink_dyn(Arc::new(sink), Some(committer)).uid("ledger");
}

/// What a plain loop says the ledger must hold.
pub fn expected(sources: &[&Numbers]) -> Rows {
    let mut counts = [0i64; KEYS as usize];
    let mut rows = Rows::new();
    let splits = sources.iter().flat_map(|source| source.rows.iter().enumerate());
    for (split, &count) in splits {
        for i in 0..count {
            let key = (i * 7 + split as i64) % KEYS;
            counts[key as usize] += 1;
            rows.push((key, counts[key as usize]));
        }
    }
    rows.sort_unstable();
    rows
}
