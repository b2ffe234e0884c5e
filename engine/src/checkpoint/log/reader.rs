//! Reads a log from its newest snapshot to its end.

use super::{LogEntry, LogEvent, LogView};
use crate::checkpoint::{CheckpointStorage, JobLayout};
use crate::{Error, Result};

/// A log may be compacted while it is read; then reading starts again, so often.
const READ_TRIES: usize = 8;

/// Reads what a job's log says now. An empty log gives an empty view.
///
/// # Errors
/// An external error when the store cannot be reached; a permanent one that names the entry when
/// one is damaged or missing.
pub fn read_log(storage: &dyn CheckpointStorage, layout: &JobLayout) -> Result<LogView> {
    let mut last_error = Error::internal("a log was never read");
    for _ in 0..READ_TRIES {
        match read_once(storage, layout, &list_slots(storage, layout)?)? {
            Attempt::Read(view) => return Ok(view),
            Attempt::Moved(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// The slots that hold an entry, ascending.
pub(super) fn list_slots(storage: &dyn CheckpointStorage, layout: &JobLayout) -> Result<Vec<u64>> {
    let listed = storage.list(&layout.log_directory())?;
    Ok(listed.iter().filter_map(|object| layout.log_sequence(&object.path)).collect())
}

/// The entry in a slot.
pub(super) fn read_entry(
    storage: &dyn CheckpointStorage,
    layout: &JobLayout,
    slot: u64,
) -> Result<Option<LogEntry>> {
    let path = layout.log_entry(slot);
    storage.get(&path)?.map(|data| LogEntry::decode(&path, &data)).transpose()
}

enum Attempt {
    Read(LogView),
    /// The log is not as it was listed, or not as it should be: tried again, then an error.
    Moved(Error),
}

fn read_once(storage: &dyn CheckpointStorage, layout: &JobLayout, slots: &[u64]) -> Result<Attempt> {
    let Some(&last) = slots.last() else { return Ok(Attempt::Read(LogView::default())) };
    // From the end back to a snapshot: what lies before one may be half deleted, or may be what a
    // fenced writer put there later.
    let mut entries = Vec::new();
    for slot in (0..=last).rev() {
        let Some(entry) = read_entry(storage, layout, slot)? else {
            let why = format!("log entry {} is missing", layout.log_entry(slot));
            return Ok(Attempt::Moved(Error::external(why).permanent()));
        };
        let is_snapshot = matches!(entry.event, LogEvent::Snapshot { .. });
        entries.push(entry);
        if is_snapshot {
            break;
        }
    }
    let mut view = LogView::starting_at(last + 1 - entries.len() as u64);
    for entry in entries.iter().rev() {
        if let Err(error) = view.apply(entry) {
            return Ok(Attempt::Moved(error));
        }
    }
    Ok(Attempt::Read(view))
}
