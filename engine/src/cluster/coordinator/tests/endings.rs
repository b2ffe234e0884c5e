//! What happens when a job is asked to stop and something goes wrong, and when a task does not return.

use super::*;

fn finished(actions: &[Action]) -> Outcome {
    match actions.last() {
        Some(Action::Finish(outcome)) => outcome.clone(),
        _ => panic!("not over: {actions:?}"),
    }
}

fn told_why(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed { error, .. } => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failure_after_a_stop_is_told_and_is_no_clean_stop() {
    let mut bench = Bench::running();
    let checkpoint = bench.acknowledged();
    bench.hear(published(checkpoint));
    bench.hear(Event::Stop);
    bench.fail_task();
    let error = told_why(finished(&bench.task_stops()));
    assert!(error.contains("gone") && error.contains("goes on from checkpoint 1-1"), "{error}");
}

#[test]
fn a_stop_after_a_failure_tells_the_failure() {
    let mut bench = Bench::running();
    bench.fail_task();
    bench.task_stops();
    let error = told_why(finished(&bench.hear(Event::Stop)));
    assert!(error.contains("gone") && error.contains("begins anew"), "{error}");
}

#[test]
fn a_task_that_does_not_return_is_named_after_the_deadline() {
    for asked in [Event::Abandon, Event::Task(task(1), FromTask::failed(&Error::external("gone")))] {
        let mut bench = Bench::running();
        assert_eq!(bench.hear(asked), [told(ToTask::Cancel)]);
        let cancelled_at = bench.now;
        let Outcome::Stuck { error, tasks } = finished(&bench.tick()) else { panic!("not stuck") };
        assert!(error.contains("did not return within 180 s"), "{error}");
        assert_eq!(tasks, [task(1)]);
        assert_eq!(bench.now - cancelled_at, 180 * SECOND);
    }
}

#[test]
fn leaving_for_good_while_tasks_are_cancelled_does_not_put_their_deadline_off() {
    let mut bench = Bench::running();
    bench.fail_task();
    bench.now += 100 * SECOND;
    bench.hear(Event::Abandon);
    assert!(matches!(finished(&bench.tick()), Outcome::Stuck { .. }));
    assert_eq!(bench.now, 180 * SECOND);
}

#[test]
fn what_a_stop_waits_for_is_said_and_for_how_long() {
    let mut bench = Bench::running();
    assert_eq!(bench.coordinator.awaited_end(), None, "nobody has asked");
    bench.hear(Event::Stop);
    let said = |bench: &Bench| bench.coordinator.awaited_end().unwrap();
    let awaited = said(&bench);
    assert!(awaited.what.contains("checkpoint 1-1, not acknowledged"), "{awaited:?}");
    assert_eq!(awaited.tasks, [task(1)]);
    assert_eq!(awaited.until.unwrap().0, bench.coordinator.config.checkpoint_timeout);

    let checkpoint = CheckpointId { generation: 1, number: 1 };
    bench.hear(Event::Task(task(1), acknowledgement(checkpoint)));
    assert!(said(&bench).what.contains("the store to take checkpoint 1-1"));
    bench.hear(not_published(checkpoint));
    assert!(said(&bench).what.contains("1 tries have failed"), "{:?}", said(&bench));
    let actions = bench.tick();
    let Action::ToTask(_, ToTask::Trigger { barrier, .. }) = actions[0] else { panic!("{actions:?}") };
    let checkpoint = barrier.checkpoint;
    bench.hear(Event::Task(task(1), acknowledgement(checkpoint)));
    bench.hear(published(checkpoint));
    assert!(said(&bench).what.contains("the commits up to checkpoint 1-2"), "{:?}", said(&bench));
    bench.hear(Event::Committed(checkpoint));
    let awaited = said(&bench);
    assert_eq!((awaited.what.as_str(), awaited.tasks), ("its tasks to return", vec![task(1)]));
    bench.task_stops();
    assert!(said(&bench).what.contains("left tidy"));
    bench.hear(Event::Tidied);
    assert_eq!(bench.coordinator.awaited_end(), None);
}
