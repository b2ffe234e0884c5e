//! What one try to write an entry means. Pure: outcomes in, what to do next out.

use super::LogEntry;
use crate::checkpoint::PutOutcome;

/// What was read in the slot after a put that did not say `Created`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing is there.
    Nothing,
    /// This entry.
    Entry(LogEntry),
    /// The read failed.
    Unreadable,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The entry is in its slot: see that nothing stands behind it.
    Verify,
    /// Nobody knows yet: try again.
    Again,
    /// An earlier entry of this writer, whose put was given up, stands there after all: take it
    /// in and write to the slot after it.
    Earlier(LogEntry),
    /// Another writer's entry stands there.
    Taken(LogEntry),
    /// Something stood there and is gone: the log was compacted past this slot by another writer.
    Superseded,
}

/// What a put-if-absent of `wanted` means. `put` is `None` when it failed, and so may have
/// succeeded. The slot is read (`found`) only when `put` is not `Created`.
pub(super) fn decide(wanted: &LogEntry, put: Option<PutOutcome>, found: Found) -> Decision {
    match (put, found) {
        (Some(PutOutcome::Created), _) => Decision::Verify,
        (Some(PutOutcome::Exists), Found::Entry(entry)) if entry == *wanted => Decision::Verify,
        // It is there, but no put has said so: only then does it survive the loss of power.
        (None, Found::Entry(entry)) if entry == *wanted => Decision::Again,
        (_, Found::Entry(entry)) if entry.writer == wanted.writer => Decision::Earlier(entry),
        (_, Found::Entry(entry)) => Decision::Taken(entry),
        (Some(PutOutcome::Exists), Found::Nothing) => Decision::Superseded,
        (None, Found::Nothing) | (_, Found::Unreadable) => Decision::Again,
    }
}

/// Whether an entry in `slot` is the log's last, after `listed` was read. If it is not, either a
/// successor has read the entry and gone on, or the slot was free only because the log was
/// compacted past it, and the entry is part of nothing.
pub(super) fn is_last(slot: u64, listed: &[u64]) -> bool {
    listed.iter().max() == Some(&slot)
}

#[cfg(test)]
mod tests {
    use super::super::{LogEvent, Writer};
    use super::*;

    fn entry(generation: u64, nonce: &str, number: u64) -> LogEntry {
        let checkpoint = crate::checkpoint::CheckpointId { generation, number };
        LogEntry::new(Writer { generation, nonce: nonce.into() }, LogEvent::Publish { checkpoint })
    }

    #[test]
    fn every_outcome_of_a_put_has_its_meaning() {
        let wanted = entry(2, "me", 7);
        let (earlier, other) = (entry(2, "me", 6), entry(2, "you", 7));
        let exists = Some(PutOutcome::Exists);
        assert_eq!(decide(&wanted, Some(PutOutcome::Created), Found::Unreadable), Decision::Verify);
        assert_eq!(decide(&wanted, exists, Found::Entry(wanted.clone())), Decision::Verify);
        assert_eq!(decide(&wanted, None, Found::Entry(wanted.clone())), Decision::Again);
        for put in [exists, None] {
            assert_eq!(
                decide(&wanted, put, Found::Entry(earlier.clone())),
                Decision::Earlier(earlier.clone())
            );
            assert_eq!(decide(&wanted, put, Found::Entry(other.clone())), Decision::Taken(other.clone()));
            assert_eq!(decide(&wanted, put, Found::Unreadable), Decision::Again);
        }
        assert_eq!(decide(&wanted, exists, Found::Nothing), Decision::Superseded);
        assert_eq!(decide(&wanted, None, Found::Nothing), Decision::Again);
    }

    #[test]
    fn only_the_highest_entry_is_last() {
        assert!(is_last(3, &[1, 3, 2]));
        assert!(!is_last(3, &[3, 9]) && !is_last(3, &[1, 2]) && !is_last(3, &[]));
    }
}
