//! The log's promises: fencing, lost answers, compaction, the format.

mod format;
mod interleaving;
mod pauses;

use std::sync::Arc;

use super::{JobLog, LogEvent, LogView, read_log};
use crate::checkpoint::fault::{Fault, Operation};
use crate::checkpoint::{CheckpointId, CheckpointStorage, FaultyStorage, JobLayout, MemoryStorage};

fn layout() -> JobLayout {
    JobLayout::new("job").unwrap()
}

fn claim(storage: &Arc<MemoryStorage>, nonce: &str) -> JobLog {
    JobLog::claim(storage.clone(), layout(), nonce.into()).unwrap()
}

/// The next checkpoint of this coordinator.
fn next(log: &JobLog) -> CheckpointId {
    CheckpointId { generation: log.generation(), number: log.view().next_number() }
}

fn publish_next(log: &mut JobLog) -> CheckpointId {
    let checkpoint = next(log);
    log.publish(checkpoint).unwrap();
    checkpoint
}

#[test]
fn a_successor_finds_what_was_published_and_committed() {
    let storage = Arc::new(MemoryStorage::new());
    let mut first = claim(&storage, "a");
    assert_eq!((first.generation(), first.view().published()), (1, &[][..]));
    let published: Vec<_> = (0..3).map(|_| publish_next(&mut first)).collect();
    first.committed(published[1]).unwrap();
    first.retire(&published[..1]).unwrap();

    let second = claim(&storage, "b");
    assert_eq!(second.generation(), 2);
    assert_eq!(second.view().published(), &published[1..]);
    assert_eq!(second.view().committed(), Some(published[1]));
    assert!(second.view().is_committed(published[0]) && !second.view().is_committed(published[2]));
    assert_eq!(second.view().next_number(), 4);
}

#[test]
fn the_older_coordinator_is_fenced_for_good() {
    let storage = Arc::new(MemoryStorage::new());
    let mut old = claim(&storage, "a");
    let published = publish_next(&mut old);
    let mut new = claim(&storage, "b");
    let error = old.publish(next(&old)).unwrap_err();
    assert!(!error.is_retryable() && error.to_string().contains("generation 1 is fenced"), "{error}");
    assert!(old.is_fenced());
    publish_next(&mut new);
    for refused in [old.publish(published), old.committed(published), old.retire(&[published])] {
        assert!(!refused.unwrap_err().is_retryable());
    }
    assert_eq!(read_log(&*storage, &layout()).unwrap(), *new.view());
}

#[test]
fn what_makes_no_sense_is_refused_before_it_is_written() {
    let storage = Arc::new(MemoryStorage::new());
    let mut log = claim(&storage, "a");
    let published = publish_next(&mut log);
    let entries = storage.list("job/log/").unwrap().len();
    log.publish(published).unwrap();
    log.publish(CheckpointId { generation: 9, number: 9 }).unwrap_err();
    log.publish(CheckpointId { generation: 1, number: 0 }).unwrap_err();
    log.committed(CheckpointId { generation: 1, number: 7 }).unwrap_err();
    log.retire(&[published]).unwrap_err();
    log.retire(&[CheckpointId { generation: 1, number: 7 }]).unwrap();
    assert_eq!(storage.list("job/log/").unwrap().len(), entries);
}

#[test]
fn retirable_spares_the_newest_and_what_is_not_committed() {
    let storage = Arc::new(MemoryStorage::new());
    let mut log = claim(&storage, "a");
    let all: Vec<_> = (0..4).map(|_| publish_next(&mut log)).collect();
    assert!(log.view().retirable(1).is_empty());
    log.committed(all[1]).unwrap();
    assert_eq!(log.view().retirable(1), &all[..2]);
    assert_eq!(log.view().retirable(3), &all[..1]);
    log.committed(all[3]).unwrap();
    assert_eq!(log.view().retirable(0), &all[..3]);
}

/// A store whose `n`th to `n + count`th put-if-absent of the log go wrong.
fn faulty(storage: &Arc<MemoryStorage>, n: u64, count: u64, fault: Fault) -> Arc<FaultyStorage> {
    let plan = Box::new(move |call: &crate::checkpoint::fault::Call<'_>| match call.operation {
        Operation::PutIfAbsent if (n..n + count).contains(&call.nth) => fault,
        _ => Fault::None,
    });
    Arc::new(FaultyStorage::new(storage.clone(), layout(), plan))
}

#[test]
fn a_put_whose_answer_was_lost_is_read_back() {
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        for n in 0..4 {
            let storage = Arc::new(MemoryStorage::new());
            let mut log = JobLog::claim(faulty(&storage, n, 2, fault), layout(), "a".into()).unwrap();
            let first = publish_next(&mut log);
            log.committed(first).unwrap();
            publish_next(&mut log);
            let view = read_log(&*storage, &layout()).unwrap();
            assert_eq!((view.published().len(), view.next_slot()), (2, 4), "{fault:?} at put {n}");
        }
    }
}

#[test]
fn an_unknown_outcome_is_settled_by_the_next_call() {
    // Every try of the first publish is lost, before or after it took effect. One that is merely read
    // back may not survive the loss of power: it stands when a put has said so.
    for fault in [Fault::FailBefore, Fault::FailAfter] {
        for again in [true, false] {
            let storage = Arc::new(MemoryStorage::new());
            let plan = faulty(&storage, 1, 4, fault);
            let mut log = JobLog::claim(plan.clone(), layout(), "a".into()).unwrap();
            let doubtful = next(&log);
            // After a first put that took effect the others find it there, and are not lost.
            match log.publish(doubtful) {
                Err(error) => assert!(error.is_retryable(), "{error}"),
                Ok(()) => assert_eq!(fault, Fault::FailAfter),
            }
            if again {
                log.publish(doubtful).unwrap();
                assert_eq!(log.view().published(), [doubtful]);
            } else {
                let other = CheckpointId { number: doubtful.number + 1, ..doubtful };
                log.publish(other).unwrap();
                assert_eq!(log.view().published().last(), Some(&other));
            }
            assert_eq!(read_log(&*storage, &layout()).unwrap(), *log.view());
        }
    }
}

#[test]
fn a_put_that_takes_effect_after_it_was_given_up_is_taken_in() {
    let storage = Arc::new(MemoryStorage::new());
    let mut log = JobLog::claim(faulty(&storage, 1, 4, Fault::FailBefore), layout(), "a".into()).unwrap();
    let late = next(&log);
    log.publish(late).unwrap_err();
    // The network delivers it now.
    let entry = super::LogEntry::new(
        super::Writer { generation: 1, nonce: "a".into() },
        LogEvent::Publish { checkpoint: late },
    );
    let _ = storage.put_if_absent(&layout().log_entry(1), entry.encode().unwrap()).unwrap();
    let other = CheckpointId { number: late.number + 1, ..late };
    log.publish(other).unwrap();
    assert_eq!(log.view().published(), [late, other]);
    assert_eq!(read_log(&*storage, &layout()).unwrap(), *log.view());
}

#[test]
fn the_log_stays_short() {
    let storage = Arc::new(MemoryStorage::new());
    let mut log = claim(&storage, "a");
    for _ in 0..500 {
        let checkpoint = publish_next(&mut log);
        log.committed(checkpoint).unwrap();
        log.retire(&log.view().retirable(2)).unwrap();
        assert!(storage.list("job/log/").unwrap().len() <= 40);
        assert_eq!(read_log(&*storage, &layout()).unwrap(), *log.view());
    }
    let successor = claim(&storage, "b");
    assert_eq!(successor.view().published(), log.view().published());
    assert_eq!(successor.view().next_number(), 501);
}

#[test]
fn a_damaged_or_missing_entry_is_named() {
    let storage = Arc::new(MemoryStorage::new());
    let mut log = claim(&storage, "a");
    publish_next(&mut log);
    let path = layout().log_entry(1);
    storage.put(&path, "{\"format\":1,".into()).unwrap();
    let error = read_log(&*storage, &layout()).unwrap_err();
    assert!(error.to_string().contains(&path) && !error.is_retryable(), "{error}");
    storage.put(&path, "{\"format\":2,\"anything\":1}".into()).unwrap();
    let error = read_log(&*storage, &layout()).unwrap_err();
    assert!(error.to_string().contains("format 2") && !error.is_retryable(), "{error}");
    storage.put(&layout().log_entry(2), storage.get(&layout().log_entry(0)).unwrap().unwrap()).unwrap();
    storage.delete(&path).unwrap();
    let error = read_log(&*storage, &layout()).unwrap_err();
    assert!(error.to_string().contains(&format!("{path} is missing")), "{error}");
}

#[test]
fn an_empty_log_is_an_empty_view() {
    assert_eq!(read_log(&MemoryStorage::new(), &layout()).unwrap(), LogView::default());
}
