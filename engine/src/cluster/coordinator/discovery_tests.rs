//! What a discovery says is heard by the enumerator of every attempt, whenever it was said.

use super::*;
use crate::cluster::RestartStrategy;
use crate::graph::ChainId;
use crate::record::EdgeSchema;
use crate::source::{
    Enumerator, EnumeratorAction, ReaderOpenContext, Source, SourceReader, SplitId, SplitState,
};
use crate::state::StateIdentity;
use crate::time::SECOND;

fn uid() -> Uid {
    Uid::new("source").unwrap()
}

fn task(attempt: u64) -> TaskId {
    TaskId { attempt, chain: ChainId(0), subtask: 0, head: uid() }
}

/// A source whose enumerator assigns one split, named like the facts that it hears.
struct Discovered;

impl Source for Discovered {
    fn name(&self) -> String {
        "discovered".into()
    }
    fn output(&self) -> Result<EdgeSchema> {
        Err(Error::internal("not asked for"))
    }
    fn identity(&self) -> StateIdentity {
        StateIdentity::of("discovered")
    }
    fn enumerator(&self, _: Option<&[u8]>) -> Result<Box<dyn Enumerator>> {
        Ok(Box::new(Discovered))
    }
    fn reader(&self, _: &ReaderOpenContext<'_>) -> Result<Box<dyn SourceReader>> {
        Err(Error::internal("not asked for"))
    }
}

impl Enumerator for Discovered {
    fn handle(&mut self, event: EnumeratorEvent) -> Result<Vec<EnumeratorAction>> {
        Ok(match event {
            EnumeratorEvent::Discovered(facts) => {
                vec![EnumeratorAction::Assign { subtask: 0, splits: vec![split(&facts)] }]
            }
            _ => Vec::new(),
        })
    }
    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }
}

fn split(facts: &[u8]) -> SplitState {
    SplitState { id: SplitId(String::from_utf8_lossy(facts).into()), position: Vec::new() }
}

/// A coordinator of one source, and which attempt runs.
struct Bench {
    coordinator: Coordinator,
    attempt: u64,
}

impl Bench {
    /// Before anything is restored.
    fn new() -> Bench {
        let config = CoordinatorConfig {
            restart: RestartStrategy::FixedDelay { attempts: 10, delay: SECOND },
            ..CoordinatorConfig::default()
        };
        let role = TaskRole { id: task(0), source: Some(uid()), uids: vec![uid()] };
        let source = SourceRole { source: Arc::new(Discovered), parallelism: 1, discovers: true };
        let coordinator = Coordinator::new(0, config, 1, vec![role], BTreeMap::from([(uid(), source)]));
        Bench { coordinator, attempt: 0 }
    }

    /// The splits that the running attempt is assigned upon an event.
    fn hear(&mut self, event: Event) -> Vec<SplitState> {
        let actions = self.coordinator.handle(SECOND * 100 * self.attempt as Micros, event);
        let assigned = actions.into_iter().filter_map(|action| match action {
            Action::ToTask(id, ToTask::AssignSplits(splits)) if id == task(self.attempt) => Some(splits),
            _ => None,
        });
        assigned.flatten().collect()
    }

    fn look(&mut self, facts: &str) -> Vec<SplitState> {
        self.hear(Event::Discovered(uid(), facts.into()))
    }

    /// The next attempt begins.
    fn restored(&mut self) -> Vec<SplitState> {
        self.attempt += 1;
        let assigned = self.hear(Event::Restored(RestoredJob { next_number: 1, ..RestoredJob::default() }));
        self.hear(Event::Task(task(self.attempt), FromTask::Running));
        assigned
    }

    /// The task fails, and while the tasks are stopped, the restart is delayed and the checkpoint
    /// is read, `between` happens.
    fn restarted(&mut self, between: [&str; 3]) -> Vec<SplitState> {
        let [cancelling, delayed, restoring] = between;
        self.hear(Event::Task(task(self.attempt), FromTask::failed(&Error::external("gone"))));
        assert_eq!(self.look(cancelling), []);
        self.hear(Event::Task(task(self.attempt), FromTask::Stopped));
        assert_eq!(self.look(delayed), []);
        let actions =
            self.coordinator.handle(SECOND * 100 * self.attempt as Micros + 90 * SECOND, Event::Tick);
        assert_eq!(actions, [Action::Restore]);
        assert_eq!(self.look(restoring), []);
        self.restored()
    }
}

#[test]
fn what_a_discovery_said_once_is_told_to_every_later_attempt() {
    let mut bench = Bench::new();
    assert_eq!(bench.restored(), []);
    assert_eq!(bench.look("a"), [split(b"a")]);
    assert_eq!(bench.look("a"), [], "it is no news to this attempt");
    // It falls silent, or says the same again.
    assert_eq!(bench.restarted(["a", "a", "a"]), [split(b"a")]);
    assert_eq!(bench.restarted(["a", "a", "a"]), [split(b"a")], "twice in a row");
    assert_eq!(bench.look("b"), [split(b"b")]);
}

#[test]
fn what_a_discovery_says_while_no_attempt_runs_is_told_to_the_next_one() {
    let mut bench = Bench::new();
    assert_eq!(bench.look("early"), [], "nothing is restored yet");
    assert_eq!(bench.restored(), [split(b"early")]);
    assert_eq!(bench.restarted(["b", "early", "early"]), [split(b"early")]);
    assert_eq!(bench.restarted(["early", "c", "c"]), [split(b"c")]);
    assert_eq!(bench.restarted(["c", "c", "d"]), [split(b"d")]);
}
