//! H6: a store that is away, or refuses, stops checkpoints and commits, not the job; a restore waits
//! for it; and only damage is damage.

use super::*;
use crate::time::MINUTE;

fn away() -> Error {
    Error::store("connection refused")
}

fn refused() -> Error {
    Error::store("403").permanent()
}

fn restore_failed(error: &Error) -> Event {
    Event::RestoreFailed { cause: Cause::from(error), fenced: false, refused: false }
}

fn restored_from(checkpoint: CheckpointId) -> Event {
    let next_number = checkpoint.number + 1;
    Event::Restored(RestoredJob { checkpoint: Some(checkpoint), next_number, ..RestoredJob::default() })
}

const CHECKPOINT: CheckpointId = CheckpointId { generation: 1, number: 1 };

/// The outcome among some actions.
fn outcome(actions: &[Action]) -> Option<&Outcome> {
    actions.iter().find_map(|action| match action {
        Action::Finish(outcome) => Some(outcome),
        _ => None,
    })
}

/// The next checkpoint comes to nothing, every other time because a task declines it.
fn checkpoint_fails(bench: &mut Bench, n: usize) -> Vec<Action> {
    if n.is_multiple_of(2) {
        let triggered = bench.tick();
        let [Action::ToTask(_, ToTask::Trigger { barrier, .. })] = triggered[..] else {
            panic!("expected a trigger, got {triggered:?}");
        };
        let (checkpoint, reason, written) = (barrier.checkpoint, "no answer".to_string(), Vec::new());
        return bench.hear(Event::Task(task(1), FromTask::Declined { checkpoint, reason, written }));
    }
    let checkpoint = bench.acknowledged();
    bench.hear(not_published(checkpoint))
}

#[test]
fn h6_no_number_of_failed_checkpoints_ends_the_job_by_default() {
    let config = CoordinatorConfig { restart: RestartStrategy::None, ..config() };
    let mut bench = Bench::running_with(config);
    for n in 0..1_000 {
        let actions = checkpoint_fails(&mut bench, n);
        assert!(matches!(actions[..], [Action::ToTask(_, ToTask::Aborted(_))]), "{n}: {actions:?}");
    }
    assert_eq!(bench.coordinator.checkpoint_failures(), 1_000);
    let checkpoint = bench.acknowledged();
    for _ in 0..100 {
        assert!(bench.hear(in_doubt(checkpoint)).is_empty());
        assert_eq!(bench.tick(), [Action::Settle(checkpoint)]);
    }
    assert_eq!(bench.hear(published(checkpoint))[0], told(ToTask::Completed(checkpoint)));
}

#[test]
fn h6_a_configured_number_of_failures_in_a_row_ends_the_job() {
    let mut bench = Bench::running_with(CoordinatorConfig { checkpoint_failures_max: Some(3), ..config() });
    for n in 0..2 {
        checkpoint_fails(&mut bench, n);
    }
    let checkpoint = bench.acknowledged();
    bench.hear(published(checkpoint));
    bench.hear(Event::Committed(checkpoint));
    for n in 0..2 {
        checkpoint_fails(&mut bench, n);
    }
    assert_eq!(checkpoint_fails(&mut bench, 1)[1..], [told(ToTask::Cancel)]);
    let actions = bench.task_stops();
    let Some(Outcome::Failed { error, blame: TaskBlame::External }) = outcome(&actions) else {
        panic!("{actions:?}");
    };
    assert!(error.contains("3 checkpoints failed in a row"), "{error}");
}

#[test]
fn h6_a_restore_of_a_job_that_ran_waits_for_the_store_and_no_restart_is_spent() {
    for error in [away(), refused()] {
        let mut bench = Bench::running();
        bench.fail_task();
        bench.task_stops();
        assert_eq!(bench.tick(), [Action::Restore]);
        for _ in 0..500 {
            assert_eq!(bench.hear(restore_failed(&error)), [Action::Retire { attempt: 1 }]);
            let before = bench.now;
            assert_eq!(bench.tick(), [Action::Restore]);
            assert!(bench.now > before, "it tries again at once");
        }
        assert!(bench.now > 60 * MINUTE);
        assert_eq!(bench.coordinator.restarts(), 1, "that of the task's own failure");
        assert_eq!(bench.hear(restored_from(CHECKPOINT)), [Action::Deploy { attempt: 2 }]);
    }
}

#[test]
fn h6_at_a_start_the_store_is_waited_for_a_minute_and_one_that_refuses_is_not() {
    let mut bench = Bench::restoring(config());
    let mut tries = 0;
    let actions = loop {
        let actions = bench.hear(restore_failed(&away()));
        if outcome(&actions).is_some() {
            break actions;
        }
        tries += 1;
        assert_eq!(bench.tick(), [Action::Restore]);
    };
    assert!(matches!(outcome(&actions), Some(Outcome::Failed { blame: TaskBlame::External, .. })));
    assert!(tries > 5 && bench.now == MINUTE, "{tries} tries in {} us", bench.now);

    let mut bench = Bench::restoring(config());
    let actions = bench.hear(restore_failed(&refused()));
    assert!(matches!(outcome(&actions), Some(Outcome::Failed { .. })), "{actions:?}");
}

/// The first attempt of a process opens `CHECKPOINT` and fails with this.
fn opening_fails(error: &Error) -> (Bench, Vec<Action>) {
    let mut bench = Bench::restoring(config());
    bench.hear(restored_from(CHECKPOINT));
    let mut actions = bench.task_fails(error);
    actions.extend(bench.task_stops());
    (bench, actions)
}

#[test]
fn only_damage_is_damage_when_a_task_cannot_open_what_it_restores() {
    let passes_over = |error: &Error| {
        let (_, actions) = opening_fails(error);
        actions
            .iter()
            .any(|action| matches!(action, Action::PassOver(checkpoint, _) if *checkpoint == CHECKPOINT))
    };
    assert!(passes_over(&Error::damaged("file a is 3 bytes instead of 4")));
    for error in [away(), refused(), Error::external("no such device").permanent(), Error::user("no")] {
        assert!(!passes_over(&error), "{error}");
    }
    let (mut bench, actions) = opening_fails(&away());
    assert_eq!(actions, [told(ToTask::Cancel), Action::Retire { attempt: 1 }]);
    assert_eq!((bench.tick(), bench.coordinator.restarts()), (vec![Action::Restore], 0));
}

#[test]
fn h6_a_commit_that_the_store_keeps_from_its_end_is_made_again_while_the_job_runs() {
    let mut bench = Bench::running();
    let checkpoint = bench.acknowledged();
    bench.hear(published(checkpoint));
    for error in [away(), refused(), away()] {
        let failed = Event::CommitFailed { checkpoint, cause: Cause::from(&error), fenced: false };
        assert!(bench.hear(failed).is_empty(), "{error}");
        assert_eq!(bench.tick(), [Action::Commit(checkpoint, Vec::new())]);
    }
    assert!(bench.hear(Event::Committed(checkpoint)).is_empty());
}

#[test]
fn a_commit_that_no_retry_mends_ends_the_job() {
    let mut bench = Bench::running();
    let checkpoint = bench.acknowledged();
    bench.hear(published(checkpoint));
    let cause = Cause::from(&Error::external("the rows are lost").permanent());
    bench.hear(Event::CommitFailed { checkpoint, cause, fenced: false });
    let actions = bench.task_stops();
    assert!(matches!(outcome(&actions), Some(Outcome::Failed { .. })), "{actions:?}");
}
