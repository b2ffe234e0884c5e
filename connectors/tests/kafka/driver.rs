//! Drives a source through its traits, as a coordinator and its tasks would: enumerator,
//! discovery and readers in one loop, checkpoints and restores at will.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{RecordBatch, cast::AsArray};
use thalweg_connectors::kafka::KafkaSource;
use thalweg_engine::Result;
use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::graph::Uid;
use thalweg_engine::metrics::Registry;
use thalweg_engine::operator::{SubtaskInfo, Waker};
use thalweg_engine::source::{
    Discovery, Enumerator, EnumeratorAction, EnumeratorEvent, ReaderContext, ReaderEffect, ReaderOpenContext,
    ReaderStatus, Source, SourceReader, SplitActivity, SplitId, SplitState,
};

/// Longest wait of any test.
pub const BOUND: Duration = Duration::from_secs(60);

/// What a checkpoint of the source holds.
#[derive(Clone)]
pub struct Checkpoint {
    pub enumerator: Vec<u8>,
    pub splits: Vec<SplitState>,
}

impl Checkpoint {
    /// The offset that is read next in a split.
    pub fn offset(&self, split: &str) -> Option<i64> {
        let of_split = self.splits.iter().filter(|state| &*state.id.0 == split);
        of_split.map(|state| i64::from_be_bytes(state.position[1..9].try_into().unwrap())).max()
    }
}

struct Slot {
    reader: Box<dyn SourceReader>,
    releases: Vec<SplitId>,
    finished: bool,
    hold: Option<bool>,
}

pub struct Driver {
    enumerator: Box<dyn Enumerator>,
    discovery: Box<dyn Discovery>,
    readers: Vec<Slot>,
    look_at: Instant,
    checkpoints: u64,
    /// Splits that were finished or given back: a task answers for them a while longer.
    retired: Vec<SplitState>,
    woken: Arc<AtomicBool>,
    pub registry: Registry,
    /// All rows so far: the split and the value, in the order of emission.
    pub rows: Vec<(String, String)>,
    pub batches: Vec<RecordBatch>,
    pub letters: Vec<RecordBatch>,
    pub activity: BTreeMap<String, SplitActivity>,
    pub owner: BTreeMap<String, u32>,
    pub finished_splits: Vec<String>,
    pub no_more: bool,
    /// The longest look of the discovery.
    pub longest_look: Duration,
    /// The longest poll of a reader.
    pub longest_poll: Duration,
}

pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

impl Driver {
    pub fn start(source: &KafkaSource, parallelism: u32) -> Driver {
        Self::launch(source, parallelism, None)
    }

    pub fn restore(source: &KafkaSource, parallelism: u32, checkpoint: &Checkpoint) -> Driver {
        Self::launch(source, parallelism, Some(checkpoint))
    }

    fn launch(source: &KafkaSource, parallelism: u32, checkpoint: Option<&Checkpoint>) -> Driver {
        let registry = Registry::default();
        let woken = Arc::new(AtomicBool::new(false));
        let readers = (0..parallelism).map(|subtask| open(source, subtask, parallelism, &registry, &woken));
        let enumerator = source.enumerator(checkpoint.map(|checkpoint| &*checkpoint.enumerator)).unwrap();
        let mut driver = Driver {
            enumerator,
            discovery: source.discovery().unwrap().unwrap(),
            readers: readers.collect(),
            look_at: Instant::now(),
            checkpoints: 0,
            retired: Vec::new(),
            woken,
            registry,
            rows: Vec::new(),
            batches: Vec::new(),
            letters: Vec::new(),
            activity: BTreeMap::new(),
            owner: BTreeMap::new(),
            finished_splits: Vec::new(),
            no_more: false,
            longest_look: Duration::ZERO,
            longest_poll: Duration::ZERO,
        };
        let splits = checkpoint.map(|checkpoint| checkpoint.splits.clone()).unwrap_or_default();
        driver.tell(EnumeratorEvent::Started { parallelism, splits }).unwrap();
        driver
    }

    fn tell(&mut self, event: EnumeratorEvent) -> Result<()> {
        for action in self.enumerator.handle(event)? {
            match action {
                EnumeratorAction::Assign { subtask, splits } => {
                    for split in &splits {
                        let id = split.id.to_string();
                        self.activity.insert(id.clone(), SplitActivity::Active);
                        assert!(self.owner.insert(id.clone(), subtask).is_none(), "{id} has two owners");
                    }
                    self.with_reader(subtask, |reader, cx| reader.add_splits(splits, cx))?;
                }
                EnumeratorAction::Release { subtask, splits } => {
                    self.readers[subtask as usize].releases.extend(splits);
                }
                EnumeratorAction::NoMoreSplits => {
                    self.no_more = true;
                    self.readers.iter_mut().for_each(|slot| slot.reader.no_more_splits());
                }
                EnumeratorAction::ToReader { subtask, message } => {
                    self.with_reader(subtask, |reader, cx| reader.message(&message, cx))?;
                }
            }
        }
        Ok(())
    }

    fn with_reader<T>(
        &mut self,
        subtask: u32,
        call: impl FnOnce(&mut dyn SourceReader, &mut ReaderContext<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut effects = Vec::new();
        let result =
            call(&mut *self.readers[subtask as usize].reader, &mut ReaderContext::new(&mut effects, now()));
        for effect in effects {
            self.take(subtask, effect)?;
        }
        result
    }

    fn take(&mut self, subtask: u32, effect: ReaderEffect) -> Result<()> {
        match effect {
            ReaderEffect::Batch(batch, runs) => {
                assert_eq!(runs.iter().map(|run| run.rows).sum::<usize>(), batch.row_count());
                let values = values_of(batch.records());
                let splits = runs.iter().flat_map(|run| vec![run.split.to_string(); run.rows]);
                for (row, split) in splits.enumerate() {
                    assert_eq!(
                        self.owner.get(&split),
                        Some(&subtask),
                        "rows of a split that it does not own"
                    );
                    self.rows.push((split, values[row].clone()));
                }
                self.batches.push(batch.into_records());
            }
            ReaderEffect::Side(1, batch) => self.letters.push(batch.into_records()),
            ReaderEffect::Activity(split, activity) => {
                self.activity.insert(split.to_string(), activity);
            }
            ReaderEffect::Hold(hold) => self.readers[subtask as usize].hold = Some(hold),
            ReaderEffect::SplitFinished(split) => {
                self.finished_splits.push(split.id.to_string());
                self.retired.push(split.clone());
                self.tell(EnumeratorEvent::Finished { subtask, split })?;
            }
            ReaderEffect::Asked(splits) => {
                for split in splits {
                    assert_eq!(self.owner.get(&*split.0), Some(&subtask), "{split} asked of another");
                }
            }
            other => panic!("unexpected {other:?}"),
        }
        Ok(())
    }

    /// One turn: a look at the world when it is due, a poll of each reader. True when a reader
    /// had something.
    pub fn turn(&mut self) -> Result<bool> {
        let mut busy = false;
        if Instant::now() >= self.look_at {
            let before = Instant::now();
            let facts = self.discovery.look()?;
            self.longest_look = self.longest_look.max(before.elapsed());
            let interval = Duration::from_micros(self.discovery.interval().try_into().unwrap());
            self.look_at = Instant::now() + interval;
            if let Some(facts) = facts {
                busy = true;
                self.tell(EnumeratorEvent::Discovered(facts))?;
            }
        }
        for subtask in 0..self.readers.len() {
            if self.readers[subtask].finished {
                continue;
            }
            let before = Instant::now();
            let status = self.with_reader(subtask as u32, |reader, cx| reader.poll(cx))?;
            self.longest_poll = self.longest_poll.max(before.elapsed());
            match status {
                ReaderStatus::Ready => busy = true,
                ReaderStatus::Waiting(_) | ReaderStatus::Paused(_) => {}
                ReaderStatus::Finished => self.readers[subtask].finished = true,
            }
        }
        Ok(busy)
    }

    /// Turns until `done`.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&Driver) -> bool) {
        self.try_until(what, &mut done).unwrap();
    }

    /// Turns until `done` or an error.
    pub fn try_until(&mut self, what: &str, mut done: impl FnMut(&Driver) -> bool) -> Result<()> {
        let start = Instant::now();
        while !done(self) {
            let rows = self.rows.len();
            assert!(
                start.elapsed() < BOUND,
                "not within {BOUND:?}: {what}; rows: {rows}, {:?}",
                self.activity
            );
            if !self.turn()? && !self.woken.swap(false, Ordering::AcqRel) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Turns for a while, to see that something does not happen.
    pub fn turn_for(&mut self, time: Duration) {
        let start = Instant::now();
        self.until("time passes", |_| start.elapsed() >= time);
    }

    pub fn is_finished(&self) -> bool {
        self.readers.iter().all(|slot| slot.finished)
    }

    /// Whether some reader holds the watermark.
    pub fn holds(&self) -> bool {
        self.readers.iter().any(|slot| slot.hold == Some(true))
    }

    /// Takes a checkpoint, without completing it.
    pub fn snapshot(&mut self) -> (CheckpointId, Checkpoint, Vec<SplitState>) {
        self.checkpoints += 1;
        let id = CheckpointId { generation: 1, number: self.checkpoints };
        let enumerator = self.enumerator.snapshot();
        let (mut splits, mut released) = (Vec::new(), Vec::new());
        for subtask in 0..self.readers.len() {
            let asked = std::mem::take(&mut self.readers[subtask].releases);
            let back =
                self.with_reader(subtask as u32, |reader, cx| reader.release_splits(&asked, cx)).unwrap();
            for split in &back {
                self.owner.remove(&*split.id.0);
                self.activity.remove(&*split.id.0);
            }
            self.retired.extend(back.iter().cloned());
            released.extend(back);
            splits.extend(self.readers[subtask].reader.snapshot(id).unwrap());
        }
        splits.extend(self.retired.iter().cloned());
        (id, Checkpoint { enumerator, splits }, released)
    }

    /// Takes a checkpoint and completes it.
    pub fn checkpoint(&mut self) -> Checkpoint {
        let (id, checkpoint, splits) = self.snapshot();
        self.readers.iter_mut().for_each(|slot| slot.reader.checkpoint_completed(id).unwrap());
        if !splits.is_empty() {
            self.tell(EnumeratorEvent::Released { checkpoint: id, splits }).unwrap();
        }
        checkpoint
    }

    /// All values so far, sorted.
    pub fn values(&self) -> Vec<String> {
        let mut values: Vec<_> = self.rows.iter().map(|(_, value)| value.clone()).collect();
        values.sort();
        values
    }

    /// How many rows came of a cluster.
    pub fn count(&self, cluster: &str) -> usize {
        self.rows.iter().filter(|(split, _)| split.starts_with(&format!("{cluster}/"))).count()
    }

    /// The sum of a metric over the tasks, for one cluster; `None` when it does not exist.
    pub fn metric(&self, name: &str, cluster: &str) -> Option<i64> {
        let of = |labels: &[(&'static str, String)]| labels.contains(&("cluster", cluster.to_string()));
        let series = self.registry.series(name);
        let values: Vec<_> =
            series.iter().filter(|(labels, _)| of(labels)).map(|(_, value)| *value).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

/// The column `value`, or the bytes in `payload`, as texts.
fn values_of(records: &RecordBatch) -> Vec<String> {
    if let Some(values) = records.column_by_name("value") {
        return values.as_string_view().iter().map(|value| value.unwrap().to_string()).collect();
    }
    let payloads = records.column_by_name("payload").unwrap().as_binary_view();
    payloads.iter().map(|payload| String::from_utf8_lossy(payload.unwrap()).into_owned()).collect()
}

fn open(
    source: &KafkaSource,
    subtask: u32,
    parallelism: u32,
    registry: &Registry,
    woken: &Arc<AtomicBool>,
) -> Slot {
    let info = SubtaskInfo {
        job: "test".into(),
        uid: Uid::new("source").unwrap(),
        subtask,
        parallelism,
        max_parallelism: 128,
        generation: 1,
        attempt: 1,
        claim: "test".into(),
    };
    let flag = woken.clone();
    let waker = Waker::new(move || flag.store(true, Ordering::Release));
    let metrics = registry.group(vec![("subtask", subtask.to_string())]);
    let reader = source.reader(&ReaderOpenContext { info: &info, waker: &waker, metrics: &metrics }).unwrap();
    Slot { reader, releases: Vec::new(), finished: false, hold: None }
}

/// `expected` and what came are the same, each once.
pub fn assert_each_once(driver: &Driver, mut expected: Vec<String>) {
    expected.sort();
    assert_eq!(driver.values(), expected);
}
