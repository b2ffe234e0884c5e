//! A panic in a user's function fails its task, not the process, and nobody waits for what will
//! not come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thalweg_engine::Result;
use thalweg_engine::checkpoint::{
    CheckpointId, CheckpointStorage, MemoryStorage, SnapshotPart, SnapshotSite,
};
use thalweg_engine::cluster::{JobConfig, JobSummary, Outcome, RestartStrategy, TaskBlame, start};
use thalweg_engine::graph::Graph;
use thalweg_engine::metrics::Registry;
use thalweg_engine::operator::*;
use thalweg_engine::record::{Batch, EdgeSchema};
use thalweg_engine::runtime::ChannelBounds;
use thalweg_engine::sink::{Committable, Committer};
use thalweg_engine::state::{MapBackend, StateIdentity};
use thalweg_engine::time::MILLI;

use crate::job::{Ledger, Numbers, expected, keyed_count_through};

/// Far less than a checkpoint's timeout: nobody waited for one.
const BOUND: Duration = Duration::from_secs(120);

fn numbers() -> Numbers {
    Numbers { rows: vec![3_000, 2_000], rows_per_poll: 7 }
}

fn run(graph: Graph) -> JobSummary {
    let mut config = JobConfig::new("count");
    config.coordinator.checkpoint_interval = 5 * MILLI;
    config.coordinator.restart = RestartStrategy::FixedDelay { attempts: 2, delay: MILLI };
    let job = start(
        graph,
        config,
        Arc::new(MemoryStorage::default()),
        Arc::new(MapBackend::default()),
        Registry::default(),
        ChannelBounds::default(),
    );
    let summary = job.unwrap().wait().unwrap();
    assert!(summary.elapsed < BOUND, "{summary:?}");
    summary
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Process,
    Upload,
}

/// Passes rows on, and panics once.
#[derive(Clone)]
struct Panics {
    place: Place,
    done: Arc<AtomicBool>,
}

impl Panics {
    fn at(place: Place) -> Panics {
        Panics { place, done: Arc::default() }
    }

    fn reached(&self, place: Place) {
        if self.place == place && !self.done.swap(true, Ordering::SeqCst) {
            panic!("on purpose");
        }
    }
}

impl OperatorFactory for Panics {
    fn name(&self) -> String {
        "panics".into()
    }
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        Ok(inputs.to_vec())
    }

    fn identity(&self, _: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

impl Operator for Panics {
    fn process(&mut self, _: usize, batch: Batch, cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.reached(Place::Process);
        cx.emit(batch);
        Ok(Step::Done)
    }
    fn snapshot(&mut self, _: CheckpointId) -> Result<OperatorSnapshot> {
        let own = self.clone();
        let upload = move |_: &SnapshotSite| -> Result<Vec<SnapshotPart>> {
            own.reached(Place::Upload);
            Ok(Vec::new())
        };
        Ok(OperatorSnapshot { tasks: vec![Box::new(upload)], ..OperatorSnapshot::default() })
    }
}

#[test]
fn a_panic_in_an_operator_fails_the_job_and_says_what_it_said() {
    let ledger = Ledger::default();
    let panics = Panics::at(Place::Process);
    let graph = keyed_count_through(numbers(), |stream| stream.apply(panics), Arc::new(ledger));
    match run(graph).outcome {
        Outcome::Failed { error, blame: TaskBlame::User } => {
            assert!(error.contains("panicked: on purpose"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_in_an_upload_declines_its_checkpoint() {
    let (ledger, panics) = (Ledger::default(), Panics::at(Place::Upload));
    let done = panics.done.clone();
    let graph = keyed_count_through(numbers(), |stream| stream.apply(panics), Arc::new(ledger.clone()));
    let summary = run(graph);
    assert!(done.load(Ordering::SeqCst), "it never came to it");
    assert_eq!((summary.outcome, summary.restarts), (Outcome::Completed, 0));
    assert_eq!(ledger.rows(), expected(&[&numbers()]));
}

/// Commits, and then panics once.
struct PanickingCommitter(Ledger, AtomicBool);

impl Committer for PanickingCommitter {
    fn commit(
        &self,
        committables: &[Committable],
        storage: &dyn CheckpointStorage,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.0.commit(committables, storage, cancelled)?;
        assert!(self.1.swap(true, Ordering::SeqCst), "on purpose");
        Ok(())
    }
}

#[test]
fn a_panic_in_a_commit_restarts_the_job_and_the_commit_is_made_again() {
    let ledger = Ledger::default();
    let committer = PanickingCommitter(ledger.clone(), AtomicBool::new(false));
    let summary = run(keyed_count_through(numbers(), |stream| stream, Arc::new(committer)));
    assert_eq!((summary.outcome, summary.restarts), (Outcome::Completed, 1));
    assert_eq!(ledger.rows(), expected(&[&numbers()]));
}
