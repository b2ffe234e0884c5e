//! What the coordinator does when publications come to nothing, or nobody knows what they came to.

mod endings;
mod store_away;

use super::*;
use crate::cluster::decision::CheckpointContent;
use crate::cluster::{RestartStrategy, TaskBlame};
use crate::graph::ChainId;
use crate::time::SECOND;

const INTERVAL: Micros = 10 * SECOND;

fn task(attempt: u64) -> TaskId {
    TaskId { attempt, chain: ChainId(0), subtask: 0, head: Uid::new("count").unwrap() }
}

/// A coordinator of one task, and the time.
struct Bench {
    coordinator: Coordinator,
    now: Micros,
}

fn config() -> CoordinatorConfig {
    CoordinatorConfig {
        checkpoint_interval: INTERVAL,
        restart: RestartStrategy::FixedDelay { attempts: 1, delay: SECOND },
        ..CoordinatorConfig::default()
    }
}

impl Bench {
    /// A coordinator that waits for what it starts from.
    fn restoring(config: CoordinatorConfig) -> Bench {
        let role = TaskRole { id: task(0), source: None, uids: vec![Uid::new("count").unwrap()] };
        Bench { coordinator: Coordinator::new(0, config, 1, vec![role], BTreeMap::new()), now: 0 }
    }

    /// The task runs its first attempt.
    fn running() -> Bench {
        Bench::running_with(config())
    }

    fn running_with(config: CoordinatorConfig) -> Bench {
        let mut bench = Bench::restoring(config);
        let restored = RestoredJob { next_number: 1, ..RestoredJob::default() };
        assert_eq!(bench.hear(Event::Restored(restored)), [Action::Deploy { attempt: 1 }]);
        assert!(bench.hear(Event::Task(task(1), FromTask::Running)).is_empty());
        bench
    }

    fn hear(&mut self, event: Event) -> Vec<Action> {
        self.coordinator.handle(self.now, event)
    }

    /// Lets time pass until the coordinator wants a tick.
    fn tick(&mut self) -> Vec<Action> {
        self.now = self.coordinator.tick_at().expect("it waits for a time");
        self.hear(Event::Tick)
    }

    /// Takes the next checkpoint up to its publication.
    fn acknowledged(&mut self) -> CheckpointId {
        let triggered = self.tick();
        let [Action::ToTask(_, ToTask::Trigger { barrier, .. })] = triggered[..] else {
            panic!("expected a trigger, got {triggered:?}");
        };
        assert_eq!(barrier.builds_on, self.coordinator.last_published());
        let checkpoint = barrier.checkpoint;
        let actions = self.hear(Event::Task(task(1), acknowledgement(checkpoint)));
        assert_eq!(actions, [Action::Publish(Box::new(content(checkpoint)))]);
        checkpoint
    }

    fn fail_task(&mut self) -> Vec<Action> {
        self.task_fails(&Error::external("gone"))
    }

    /// The task of the attempt that runs fails.
    fn task_fails(&mut self, error: &Error) -> Vec<Action> {
        let id = task(self.coordinator.attempt);
        self.hear(Event::Task(id, FromTask::failed(error)))
    }

    fn task_stops(&mut self) -> Vec<Action> {
        let id = task(self.coordinator.attempt);
        self.hear(Event::Task(id, FromTask::Stopped))
    }
}

fn acknowledgement(checkpoint: CheckpointId) -> FromTask {
    let (parts, released, written) = (Vec::new(), Vec::new(), Vec::new());
    FromTask::Acknowledged { checkpoint, parts, released, finished: false, written }
}

fn content(checkpoint: CheckpointId) -> CheckpointContent {
    CheckpointContent {
        checkpoint,
        parts: BTreeMap::new(),
        enumerators: BTreeMap::new(),
        finished: BTreeSet::new(),
        uncommitted: BTreeMap::new(),
    }
}

fn in_doubt(checkpoint: CheckpointId) -> Event {
    Event::PublishInDoubt { checkpoint, error: "no answer".into() }
}

fn published(checkpoint: CheckpointId) -> Event {
    Event::Published { checkpoint, known: Arc::default() }
}

fn not_published(checkpoint: CheckpointId) -> Event {
    Event::PublishFailed { checkpoint, error: "no room".into(), fenced: false }
}

fn told(message: ToTask) -> Action {
    Action::ToTask(task(1), message)
}

#[test]
fn while_a_publication_is_in_doubt_no_other_checkpoint_begins_and_tasks_are_told_nothing() {
    let mut bench = Bench::running();
    let first = bench.acknowledged();
    assert!(bench.hear(in_doubt(first)).is_empty());
    assert_eq!(bench.tick(), [Action::Settle(first)]);
    assert_eq!(bench.coordinator.tick_at(), None, "somebody finds out");
    bench.now += 10 * INTERVAL;
    assert!(bench.hear(Event::Tick).is_empty(), "though the next one is long due");

    let actions = bench.hear(published(first));
    assert_eq!(actions[..2], [told(ToTask::Completed(first)), Action::Commit(first, Vec::new())]);
    assert!(matches!(actions[2], Action::ToTask(_, ToTask::Trigger { .. })), "{actions:?}");
}

#[test]
fn a_publication_in_doubt_that_comes_to_nothing_is_aborted() {
    let mut bench = Bench::running();
    let first = bench.acknowledged();
    bench.hear(in_doubt(first));
    bench.tick();
    assert_eq!(bench.hear(not_published(first)), [told(ToTask::Aborted(first))]);
    assert_ne!(bench.acknowledged(), first);
}

#[test]
fn a_failure_while_a_publication_is_in_doubt_leaves_it_to_the_restore_to_find_out() {
    let mut bench = Bench::running();
    let first = bench.acknowledged();
    assert!(bench.hear(in_doubt(first)).is_empty());
    assert_eq!(bench.fail_task(), [told(ToTask::Cancel)]);
    assert_eq!(bench.task_stops(), [Action::Retire { attempt: 1 }]);
    assert_eq!(bench.tick(), [Action::Restore]);
}

#[test]
fn a_restore_waits_for_a_publication_that_is_under_way() {
    for outcome in [published, not_published, in_doubt] {
        let mut bench = Bench::running();
        let first = bench.acknowledged();
        assert_eq!(bench.fail_task(), [told(ToTask::Cancel)]);
        bench.hear(Event::Task(task(1), FromTask::Stopped));
        bench.now += 10 * SECOND;
        assert!(bench.hear(Event::Tick).is_empty(), "it is not known what to restore");
        assert_eq!(bench.coordinator.tick_at(), None);
        assert_eq!(bench.hear(outcome(first)), [Action::Restore]);
    }
}

#[test]
fn a_job_leaves_its_store_tidy_before_it_is_over() {
    let mut bench = Bench::running();
    bench.hear(Event::Task(task(1), FromTask::DataEnded));
    let last = CheckpointId { generation: 1, number: 1 };
    bench.hear(Event::Task(task(1), acknowledgement(last)));
    bench.hear(published(last));
    assert!(bench.hear(Event::Committed(last)).is_empty(), "sources would be told to send the end");
    assert_eq!(bench.hear(Event::Task(task(1), FromTask::Stopped)), [Action::Tidy]);
    assert_eq!(bench.hear(Event::Tidied), [Action::Finish(Outcome::Completed)]);
}
