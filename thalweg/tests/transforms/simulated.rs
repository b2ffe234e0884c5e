//! Seeded runs. A failing seed is printed; `THALWEG_SEED=<seed> cargo test --workspace --test
//! transforms` replays it alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use thalweg::engine::checkpoint::fault::FaultyStorage;
use thalweg::engine::checkpoint::{JobLayout, MemoryStorage};
use thalweg::engine::cluster::{
    CrashAt, FaultCounts, JobConfig, Outcome, ProcessFaults, SeededFaults, SeededOrder, Simulated,
    SimulationSetup, seeded_store_faults, simulate, start,
};
use thalweg::engine::metrics::Registry;
use thalweg::engine::runtime::{ChannelBounds, ManualClock};
use thalweg::engine::state::{MapBackend, RocksBackend, RocksConfig};
use thalweg::prelude::*;

use crate::job::{Answer, Files, Gathering, ROWS, World, answers, graph, times, versions};
use crate::tap::Tap;
use crate::versions::{Changes, Placed, Trail, check, hash, saved};

const SEEDS: u64 = 70;
/// Runs of one seed; from the fifth on nothing is interrupted.
const RUNS_MAX: u64 = 9;
const QUIET_FROM: u64 = 4;
const JOB: &str = "transforms";

/// What happened over all seeds: the test is worth what these are.
#[derive(Default)]
struct Seen {
    counts: Arc<FaultCounts>,
    rescaled: u32,
    changes: Changes,
    /// Restores whose version was gone, and said so.
    lost: u32,
}

/// What a seed came to, whole: the same twice.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    answers: Vec<Answer>,
    trail: Vec<Placed>,
    clock: Micros,
}

/// What is written to the log.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Said {
    /// Runs with warnings caught; says them.
    fn during<T>(run: impl FnOnce() -> T) -> (T, String) {
        let said = Said::default();
        let writer = said.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_writer(move || writer.clone())
            .finish();
        let result = tracing::subscriber::with_default(subscriber, run);
        let text = String::from_utf8_lossy(&said.0.lock().unwrap()).into_owned();
        (result, text)
    }
}

/// The reference's file, replaced when so many rows were read.
struct Replacing {
    path: PathBuf,
    next: PathBuf,
    in_place: bool,
    rows: AtomicUsize,
    at_row: usize,
}

impl Replacing {
    fn read(&self, rows: usize) {
        let before = self.rows.fetch_add(rows, Ordering::Relaxed);
        if before < self.at_row && before + rows >= self.at_row {
            // Both ways that people replace files.
            match self.in_place {
                true => drop(std::fs::copy(&self.next, &self.path).unwrap()),
                false => std::fs::rename(&self.next, &self.path).unwrap(),
            }
        }
    }
}

fn taps(world: &Arc<World>, replacing: &Arc<Replacing>, trail: &Trail) -> [Tap; 3] {
    let replacing = replacing.clone();
    let read = Tap::new(move |_, _, rows| replacing.read(rows.num_rows()));
    let never_late = |watermark: Watermark, rows: &arrow::array::RecordBatch| {
        if rows.num_rows() > 0 {
            let late = times(rows).into_iter().find(|&time| Watermark(time) <= watermark);
            assert_eq!(late, None, "came behind {watermark:?}");
        }
    };
    let embedded = Tap::new(move |_, watermark, rows| never_late(watermark, rows));
    let (trail, world) = (trail.clone(), world.clone());
    let placed = Tap::new(move |at, watermark, rows| {
        never_late(watermark, rows);
        if rows.num_rows() == 0 {
            return trail.add([Placed { at, row: None }]);
        }
        let rows = versions(rows);
        assert!(rows.iter().all(|(id, _)| (*id as usize) < world.said.len()));
        trail.add(rows.into_iter().map(|row| Placed { at, row: Some(row) }));
    });
    [read, embedded, placed]
}

/// What lies there before a run: the reference, copies of it, and checkpoints.
struct Site {
    local: tempfile::TempDir,
    storage: Arc<MemoryStorage>,
    /// Of the two versions.
    hashes: [String; 2],
}

/// Which version a run goes on with.
struct Restored {
    version: i64,
    in_file: i64,
    /// The checkpoint names another, which is no longer to be had.
    is_lost: bool,
}

impl Site {
    fn new(world: &World) -> Site {
        let (local, storage) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStorage::default()));
        let paths = ["reference", "next"].map(|name| local.path().join(name));
        world.references.iter().zip(&paths).for_each(|(matrix, path)| matrix.write(path).unwrap());
        Site { local, storage, hashes: paths.map(|path| hash(&path)) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.local.path().join(name)
    }

    /// The checkpoint's version, if it is still to be had: at times the cache is gone.
    fn restored(&self, order: &mut SeededOrder) -> Restored {
        let version = |of: &str| 1 + self.hashes.iter().position(|hash| hash == of).unwrap() as i64;
        let in_file = version(&hash(&self.at("reference")));
        let named = saved(&*self.storage, JOB, "nearest").map_or(in_file, |hash| version(&hash));
        if order.below(if named == in_file { 6 } else { 3 }) == 0 {
            let _ = std::fs::remove_dir_all(self.at("cache"));
        }
        let copy = self.at("cache").join("blobs").join(&self.hashes[named as usize - 1]);
        let is_lost = named != in_file && !copy.exists();
        Restored { version: if is_lost { in_file } else { named }, in_file, is_lost }
    }
}

/// One run, to its end or to a crash.
struct Run<'a> {
    site: &'a Site,
    clock: &'a ManualClock,
    number: u64,
    is_on_rocksdb: bool,
    parallelism: u32,
}

impl Run<'_> {
    fn simulate(self, graph: Graph, order: &mut SeededOrder, seen: &Seen) -> (Result<Simulated>, String) {
        let quiet = self.number >= QUIET_FROM;
        let interval = (2 + order.below(12) as Micros) * MILLI;
        let per_thousand = if quiet { 0 } else { order.below(90) };
        let (clock, counts) = (self.clock.clone(), seen.counts.clone());
        let plan = seeded_store_faults(order.fork(), per_thousand, interval, clock, counts.clone());
        let drawn = SeededFaults::new(order.fork(), 1_100, interval, counts);
        let faults: Box<dyn ProcessFaults> = if quiet { Box::new(CrashAt(None)) } else { Box::new(drawn) };
        let layout = JobLayout::new(JOB).unwrap();
        let state = self.site.at(&format!("state-{}", self.number));
        let setup = SimulationSetup {
            seed: order.next_u64(),
            faults,
            steps_max: 300_000,
            clock: self.clock.clone(),
            storage: Arc::new(FaultyStorage::new(self.site.storage.clone(), layout, plan)),
            backend: match self.is_on_rocksdb {
                true => Arc::new(RocksBackend::new(RocksConfig::new(state).simulated()).unwrap()),
                false => Arc::new(MapBackend::new(state)),
            },
            bounds: ChannelBounds { rows_max: 1 + order.below(60), bytes_max: 1 << 20 },
        };
        Said::during(|| simulate(graph, config(self.parallelism, interval), setup))
    }
}

fn run(
    seed: u64,
    world: &Arc<World>,
    wanted: &[Answer],
    seen: &mut Seen,
) -> std::result::Result<Came, String> {
    let mut order = SeededOrder::new(seed ^ 0x7e5);
    let (ordered, is_on_rocksdb) = (!seed.is_multiple_of(5), seed.is_multiple_of(10) || seed % 10 == 3);
    let (site, clock) = (Site::new(world), ManualClock::new(0));
    let (reference, cache) = (site.at("reference"), site.at("cache"));
    let replacing = Arc::new(Replacing {
        path: reference.clone(),
        next: site.at("next"),
        in_place: order.below(2) == 0,
        rows: AtomicUsize::new(0),
        at_row: 1 + order.below(ROWS * 3 / 2),
    });
    let (trail, out) = (Trail::default(), Collected::new());
    let mut before = None;
    for number in 0..RUNS_MAX {
        let restored = site.restored(&mut order);
        let gathering = Gathering::drawn(&mut order, ordered);
        let files = Files { reference: &reference, cache: &cache };
        let graph = graph(world, &gathering, &files, taps(world, &replacing, &trail), &out);
        let parallelism = 1 + order.below(3) as u32;
        seen.rescaled += u32::from(before.replace(parallelism).is_some_and(|before| before != parallelism));
        let first = trail.len();
        let run = Run { site: &site, clock: &clock, number, is_on_rocksdb, parallelism };
        let (ended, said) = run.simulate(graph, &mut order, seen);
        let ended = ended.map_err(|error| error.to_string())?;
        let placed = trail.from(first);
        seen.changes.add(check(&placed, Some(restored.version), restored.in_file)?);
        if restored.is_lost && !placed.is_empty() {
            seen.lost += 1;
            if !said.contains("is no longer to be had") {
                return Err(format!("nothing was said of a version that was gone: {said:?}"));
            }
        }
        match ended {
            Simulated::Crashed => {}
            Simulated::Ended(Outcome::Completed) => {
                let answers = answers(&out);
                compare(&answers, world, wanted, ordered)?;
                let clock = thalweg::engine::runtime::Clock::monotonic(&clock);
                return Ok(Came { answers, trail: trail.from(0), clock });
            }
            // A store that fails too often fails the job; whoever supervises it starts it again.
            Simulated::Ended(Outcome::Failed { .. }) if number < QUIET_FROM => {}
            Simulated::Ended(other) => return Err(format!("ended with {other:?}")),
        }
    }
    Err(format!("not over after {RUNS_MAX} runs"))
}

fn config(parallelism: u32, interval: Micros) -> JobConfig {
    let mut config = JobConfig::new(JOB);
    config.parallelism = parallelism;
    config.max_parallelism = 16;
    config.coordinator.checkpoint_interval = interval;
    // No predecessor outlives a crash here.
    config.orphan_grace = 0;
    config
}

/// Every row once, with the embedding and the neighbours that it has by itself; in the order of its
/// key, and so with the same near-duplicates, where order is kept.
fn compare(
    answers: &[Answer],
    world: &World,
    wanted: &[Answer],
    ordered: bool,
) -> std::result::Result<(), String> {
    let mut ids: Vec<i64> = answers.iter().map(|answer| answer.id).collect();
    if ordered {
        let mut last: BTreeMap<i64, i64> = BTreeMap::new();
        for answer in answers {
            if let Some(before) = last.insert(answer.key, answer.id).filter(|before| *before > answer.id) {
                return Err(format!("{before} before {} of key {}", answer.id, answer.key));
            }
        }
    }
    ids.sort_unstable();
    if ids != (0..ROWS as i64).collect::<Vec<_>>() {
        return Err(format!("{} rows, and not each once: {ids:?}", ids.len()));
    }
    for answer in answers {
        if answer.embedding != world.embedding(answer.id) {
            return Err(format!("row {} has another embedding than by itself", answer.id));
        }
        let version = answer.version().ok_or_else(|| format!("{answer:?} is of two versions"))?;
        if answer.neighbours != world.neighbours(answer.id, version) {
            return Err(format!("{answer:?} are not the nearest"));
        }
        let by_itself = wanted.iter().find(|wanted| wanted.id == answer.id);
        if ordered && by_itself.is_some_and(|wanted| wanted.duplicate_of != answer.duplicate_of) {
            return Err(format!("{answer:?} is no duplicate of {by_itself:?}"));
        }
    }
    Ok(())
}

/// A job of one run that nothing disturbs, and the file that is replaced after so many rows.
struct Undisturbed {
    local: tempfile::TempDir,
    trail: Trail,
    out: Collected,
}

impl Undisturbed {
    fn new() -> Undisturbed {
        let local = tempfile::tempdir().unwrap();
        Undisturbed { local, trail: Trail::default(), out: Collected::new() }
    }

    fn graph(&self, world: &Arc<World>, gathering: &Gathering, at_row: usize) -> Graph {
        let at = |name: &str| self.local.path().join(name);
        world.references[0].write(&at("reference")).unwrap();
        world.references[1].write(&at("next")).unwrap();
        let rows = AtomicUsize::new(0);
        let replacing = Replacing { path: at("reference"), next: at("next"), in_place: false, rows, at_row };
        let taps = taps(world, &Arc::new(replacing), &self.trail);
        let files = Files { reference: &at("reference"), cache: &at("cache") };
        graph(world, gathering, &files, taps, &self.out)
    }
}

/// The job at parallelism 1 with nothing in its way.
fn undisturbed(world: &Arc<World>) -> Vec<Answer> {
    let job = Undisturbed::new();
    let graph = job.graph(world, &Gathering::drawn(&mut SeededOrder::new(1), true), usize::MAX);
    let setup = SimulationSetup {
        seed: 1,
        faults: Box::new(CrashAt(None)),
        steps_max: 300_000,
        clock: ManualClock::new(0),
        storage: Arc::new(MemoryStorage::default()),
        backend: Arc::new(MapBackend::default()),
        bounds: ChannelBounds { rows_max: 1_000, bytes_max: 1 << 20 },
    };
    let ended = simulate(graph, config(1, 5 * MILLI), setup).unwrap();
    assert_eq!(ended, Simulated::Ended(Outcome::Completed));
    let answers = answers(&job.out);
    compare(&answers, world, &answers, true).unwrap();
    let duplicates = answers.iter().filter(|answer| answer.duplicate_of.is_some()).count();
    assert!((ROWS / 10..ROWS * 9 / 10).contains(&duplicates), "{duplicates} near-duplicates");
    answers
}

fn seeds() -> Vec<u64> {
    match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().expect("THALWEG_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

#[test]
fn every_row_once_with_one_version_an_epoch_over_crashes_faults_rescaling_and_reloads() {
    let world = Arc::new(World::new());
    let wanted = undisturbed(&world);
    let mut seen = Seen::default();
    for seed in seeds() {
        let again = |seen: &mut Seen| match run(seed, &world, &wanted, seen) {
            Ok(came) => came,
            Err(error) => panic!(
                "seed {seed}: {error}; replay: THALWEG_SEED={seed} cargo test --workspace --test transforms"
            ),
        };
        let came = again(&mut seen);
        // A run replays from its seed alone, whole.
        if seed.is_multiple_of(8) {
            assert!(came == again(&mut Seen::default()), "seed {seed} came to something else again");
        }
    }
    let Seen { counts, rescaled, changes: Changes { in_the_middle, back }, lost } = seen;
    let shown = format!(
        "{counts}, {rescaled} rescaled, {in_the_middle} reloads in the middle, {back} went back, {lost} lost"
    );
    println!("{shown}");
    if std::env::var("THALWEG_SEED").is_err() {
        let least = [(&counts.crashes, 90), (&counts.task_failures, 90), (&counts.store_faults, 200)];
        let enough = least.into_iter().all(|(count, least)| count.load(Ordering::Relaxed) > least);
        let enough = enough && rescaled > 80 && in_the_middle > 40 && back > 5 && lost > 4;
        assert!(enough, "{shown}: too few to prove anything");
    }
}

#[test]
fn so_it_is_on_threads() {
    let world = Arc::new(World::new());
    let wanted = undisturbed(&world);
    for seed in 0..10 {
        let job = Undisturbed::new();
        let drawn = Gathering::drawn(&mut SeededOrder::new(seed), true);
        let gathering = Gathering { is_threaded: true, every: 500, source_rows: 1, ..drawn };
        let graph = job.graph(&world, &gathering, ROWS / 4);
        let (storage, backend) = (Arc::new(MemoryStorage::default()), Arc::new(MapBackend::default()));
        let bounds = ChannelBounds { rows_max: 4, bytes_max: 1 << 20 };
        let config = config(1 + seed as u32 % 3, MILLI);
        let running = start(graph, config, storage, backend, Registry::default(), bounds).unwrap();
        let summary = running.wait().unwrap();
        assert_eq!((summary.outcome, summary.restarts), (Outcome::Completed, 0), "{gathering:?}");
        compare(&answers(&job.out), &world, &wanted, true).unwrap();
        // An instance whose thread comes late opens with what is there by then.
        check(&job.trail.from(0), None, 1).unwrap();
    }
}
