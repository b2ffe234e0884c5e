//! One job, three ways, one output.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thalweg::connectors::format::{EncodedRows, Encoder, JsonEncoder};
use thalweg::job::LoadedJob;
use thalweg::job::spec::store_url;
use thalweg::prelude::*;

use crate::paced::Pace;

/// Checkpoints that complete in the middle.
const CHECKPOINTS: usize = 3;
/// How long anything may take; a bound, not an expectation.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where a job keeps what outlives its runs.
pub struct Site {
    directory: tempfile::TempDir,
    collected: Mutex<BTreeMap<String, Collected>>,
}

impl Site {
    fn new() -> Site {
        Site { directory: tempfile::tempdir().unwrap(), collected: Mutex::default() }
    }

    /// A directory of its own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The URL of its checkpoints.
    pub fn store(&self) -> String {
        format!("file://{}", self.directory().join("checkpoints").display())
    }

    /// A job in Rust that is started here.
    pub fn job(&self, name: &str, parallelism: u32) -> Job {
        let job = Job::new(name).parallelism(parallelism).checkpoints(&self.store());
        job.checkpoint_every(10 * MILLI)
    }

    /// The same of a job file.
    pub fn prepare(&self, job: &mut LoadedJob) {
        let checkpoint = &mut job.spec.settings.checkpoint;
        checkpoint.interval = 10 * MILLI;
        checkpoint.store.value = store_url(&self.store());
    }

    /// What the sink of this name has collected, over all runs.
    pub fn collected(&self, name: &str) -> Collected {
        self.collected.lock().entry(name.to_string()).or_default().clone()
    }

    /// The lines of the sinks that collect, in the order in which they came to count.
    pub fn collected_lines(&self) -> BTreeMap<String, Vec<String>> {
        let collected = self.collected.lock();
        collected.iter().map(|(name, collected)| (name.clone(), lines(collected))).collect()
    }
}

fn lines(collected: &Collected) -> Vec<String> {
    let mut rows = EncodedRows::new();
    for batch in collected.batches() {
        JsonEncoder::new().encode(&batch, &mut rows).unwrap();
    }
    rows.iter().map(|row| String::from_utf8(row.to_vec()).unwrap()).collect()
}

/// A job that gives the same however it is run.
pub trait Golden {
    /// Starts it, with a checkpoint every few milliseconds; it goes on from the site's store.
    fn start(&self, site: &Site, parallelism: u32, pace: &Pace) -> RunningJob;

    /// What it gave, by sink, in an order that does not depend on the run.
    fn outputs(&self, site: &Site) -> BTreeMap<String, Vec<String>> {
        let mut outputs = site.collected_lines();
        outputs.values_mut().for_each(|lines| lines.sort());
        outputs
    }
}

fn wait_until(what: &str, job: &RunningJob, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(!job.is_over(), "the job was over before {what}");
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn complete(job: RunningJob) {
    let summary = job.wait().unwrap();
    assert_eq!((&summary.outcome, summary.restarts), (&Outcome::Completed, 0), "{summary:?}");
}

/// Straight at parallelism 1; at 2 with checkpoints in the middle; at 2, left at once behind a
/// checkpoint with rows that it does not hold, and restored at 3. Answers with what it gave.
pub fn three_ways(golden: &dyn Golden) -> BTreeMap<String, Vec<String>> {
    let straight = Site::new();
    complete(golden.start(&straight, 1, &Pace::free()));
    let expected = golden.outputs(&straight);
    assert!(!expected.is_empty() && expected.values().all(|rows| !rows.is_empty()), "{expected:?}");

    let checkpointed = Site::new();
    let pace = Pace::through(CHECKPOINTS);
    let job = golden.start(&checkpointed, 2, &pace);
    let metrics = job.metrics().clone();
    complete(job);
    assert!(pace.has_passed() && pace.is_behind(), "the checkpoints were not in the middle: {pace:?}");
    // The last one, behind the end, is one more.
    assert!(metrics.total("checkpoints_completed_total") > CHECKPOINTS as i64);
    assert_eq!(golden.outputs(&checkpointed), expected, "with checkpoints");

    let restored = Site::new();
    let pace = Pace::up_to(CHECKPOINTS);
    let job = golden.start(&restored, 2, &pace);
    wait_until("checkpoints in the middle", &job, || pace.has_passed());
    pace.lose_rows();
    wait_until("rows behind the last checkpoint", &job, || pace.is_behind());
    job.abandon();
    assert_eq!(job.wait().unwrap().outcome, Outcome::Abandoned);
    complete(golden.start(&restored, 3, &Pace::free()));
    assert_eq!(golden.outputs(&restored), expected, "restored at another parallelism");
    expected
}
