//! What a log says when it is read from its beginning (or its newest snapshot) to its end. Pure.

use super::{LogEntry, LogEvent, Writer};
use crate::checkpoint::CheckpointId;
use crate::{Error, Result};

/// What the entries read so far say together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogView {
    next: u64,
    holder: Option<Writer>,
    published: Vec<CheckpointId>,
    committed: Option<CheckpointId>,
    highest_number: u64,
}

impl LogView {
    /// A view that begins at entry `first`: 0, or that of a snapshot.
    pub(super) fn starting_at(first: u64) -> LogView {
        LogView { next: first, ..LogView::default() }
    }

    /// The slot after the last entry that was read.
    pub fn next_slot(&self) -> u64 {
        self.next
    }

    /// Who claimed last; `None` in an empty log.
    pub fn holder(&self) -> Option<&Writer> {
        self.holder.as_ref()
    }

    /// The highest generation that was claimed; 0 in an empty log.
    pub fn generation(&self) -> u64 {
        self.holder.as_ref().map_or(0, |writer| writer.generation)
    }

    /// Checkpoints that are published and not retired, in the order of publication.
    pub fn published(&self) -> &[CheckpointId] {
        &self.published
    }

    /// The last published checkpoint whose commits are known to be done.
    pub fn committed(&self) -> Option<CheckpointId> {
        self.committed
    }

    /// A number above that of every published checkpoint.
    pub fn next_number(&self) -> u64 {
        self.highest_number + 1
    }

    /// Whether the commits of a published checkpoint are known to be done.
    pub fn is_committed(&self, checkpoint: CheckpointId) -> bool {
        // Numbers rise with publication, over all generations.
        self.committed.is_some_and(|committed| checkpoint.number <= committed.number)
    }

    /// The published checkpoints that may be retired when the newest `retain` (at least one) are
    /// kept: never one with commits that are not known to be done.
    pub fn retirable(&self, retain: usize) -> Vec<CheckpointId> {
        let old = self.published.len().saturating_sub(retain.max(1));
        self.published[..old].iter().copied().filter(|&checkpoint| self.is_committed(checkpoint)).collect()
    }

    /// Takes the entry at [`LogView::next_slot`] in.
    ///
    /// # Errors
    /// An internal error when the entry cannot follow what was read: the log is damaged, or its
    /// protocol was broken.
    pub(super) fn apply(&mut self, entry: &LogEntry) -> Result<()> {
        let broken = |why: &str| {
            let (slot, writer) = (self.next, &entry.writer);
            Err(Error::internal(format!("log entry {slot} of generation {} {why}", writer.generation)))
        };
        let held = self.holder.as_ref();
        match &entry.event {
            LogEvent::Claim if entry.writer.generation <= self.generation() => {
                return broken("claims a generation that is not higher than the last");
            }
            LogEvent::Claim => {}
            // A snapshot may come first: its claim lies before it and may be deleted. It replaces
            // whatever was read before it.
            LogEvent::Snapshot { .. } if entry.writer.generation >= self.generation() => {}
            _ if held != Some(&entry.writer) => return broken("was written without its claim"),
            LogEvent::Publish { checkpoint } if checkpoint.number <= self.highest_number => {
                return broken("publishes a number that is not higher than the last");
            }
            _ => {}
        }
        self.fold(entry);
        self.next += 1;
        Ok(())
    }

    fn fold(&mut self, entry: &LogEntry) {
        match &entry.event {
            LogEvent::Claim => {}
            LogEvent::Publish { checkpoint } => {
                self.published.push(*checkpoint);
                self.highest_number = checkpoint.number;
            }
            LogEvent::Committed { checkpoint } => {
                if !self.is_committed(*checkpoint) {
                    self.committed = Some(*checkpoint);
                }
            }
            LogEvent::Retire { checkpoints } => self.published.retain(|held| !checkpoints.contains(held)),
            LogEvent::Snapshot { published, committed, highest_number } => {
                self.published.clone_from(published);
                self.committed = *committed;
                self.highest_number = *highest_number;
            }
        }
        self.holder = Some(entry.writer.clone());
    }

    /// All of it as one event.
    pub(super) fn snapshot(&self) -> LogEvent {
        LogEvent::Snapshot {
            published: self.published.clone(),
            committed: self.committed,
            highest_number: self.highest_number,
        }
    }
}
