//! A coordinator's hold on its job's log: the thin I/O around [`super::decide`].

use std::sync::Arc;

use super::decide::{Decision, Found, decide, is_last};
use super::reader::{list_slots, read_entry, read_log};
use super::{LogEntry, LogEvent, LogView, Writer};
use crate::checkpoint::{CheckpointId, CheckpointStorage, JobLayout, PutOutcome};
use crate::{Error, Result};

/// How often one entry is put before its outcome is called unknown. Waiting between tries is the
/// storage's business.
const PUT_TRIES: usize = 4;
/// How often a claim starts over because others write at the same time.
const CLAIM_TRIES: usize = 64;
/// Entries after which the log is compacted behind a snapshot.
const COMPACT_AFTER_ENTRIES: u64 = 32;

/// The log of a job, claimed: the right of one coordinator to publish and commit, until another
/// one claims it. Once fenced, it stays fenced.
///
/// A call that fails with a retryable error has an unknown outcome: its entry may stand, or may
/// come to stand later. Call again with the same argument, or go on: the next call finds out
/// first. Until one has succeeded, nothing of the checkpoint in question may be deleted.
pub struct JobLog {
    storage: Arc<dyn CheckpointStorage>,
    layout: JobLayout,
    writer: Writer,
    view: LogView,
    /// The oldest entry that is not deleted, as far as this writer knows.
    oldest: u64,
    fenced_by: Option<String>,
}

/// What became of an entry.
enum Written {
    Stands,
    Earlier(LogEntry),
    Taken(LogEntry),
    Superseded,
}

impl JobLog {
    /// Reads the log and claims the next generation. `nonce` must be unlike that of any other
    /// claim ever (see [`super::fresh_nonce`]).
    ///
    /// # Errors
    /// An external error when the store cannot be reached (claim again), a permanent one when the
    /// log is damaged.
    pub fn claim(storage: Arc<dyn CheckpointStorage>, layout: JobLayout, nonce: String) -> Result<JobLog> {
        let mut view = read_log(&*storage, &layout)?;
        for _ in 0..CLAIM_TRIES {
            let writer = Writer { generation: view.generation() + 1, nonce: nonce.clone() };
            let entry = LogEntry::new(writer.clone(), LogEvent::Claim);
            match write(&*storage, &layout, view.next_slot(), &entry)? {
                Written::Stands => {
                    view.apply(&entry)?;
                    tracing::info!(job = layout.job_path(), generation = writer.generation, "claimed");
                    return Ok(JobLog { storage, layout, writer, view, oldest: 0, fenced_by: None });
                }
                Written::Taken(entry) | Written::Earlier(entry) if view.apply(&entry).is_ok() => {}
                _ => view = read_log(&*storage, &layout)?,
            }
        }
        Err(Error::external(format!("cannot claim job {}: others keep claiming it", layout.job_path())))
    }

    /// The generation that was claimed.
    pub fn generation(&self) -> u64 {
        self.writer.generation
    }

    /// The claim: the generation and its nonce.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// What the log says, as far as this coordinator knows.
    pub fn view(&self) -> &LogView {
        &self.view
    }

    /// The job's paths.
    pub fn layout(&self) -> &JobLayout {
        &self.layout
    }

    /// Whether another coordinator has claimed the job, as far as this one has noticed.
    pub fn is_fenced(&self) -> bool {
        self.fenced_by.is_some()
    }

    /// Publishes a checkpoint of this generation, whose manifest is written.
    ///
    /// # Errors
    /// A permanent error when fenced; a retryable one when the outcome is unknown.
    pub fn publish(&mut self, checkpoint: CheckpointId) -> Result<()> {
        if self.view.published().contains(&checkpoint) {
            // An earlier call whose outcome was unknown.
            return self.check_fence();
        }
        if checkpoint.generation != self.writer.generation || checkpoint.number < self.view.next_number() {
            let (own, least) = (self.writer.generation, self.view.next_number());
            return Err(Error::internal(format!(
                "generation {own} cannot publish checkpoint {checkpoint}; its next number is {least} or higher"
            )));
        }
        self.append(LogEvent::Publish { checkpoint })
    }

    /// Says that all committables of a published checkpoint, and of those published before it,
    /// are committed.
    ///
    /// # Errors
    /// A permanent error when fenced; a retryable one when the outcome is unknown.
    pub fn committed(&mut self, checkpoint: CheckpointId) -> Result<()> {
        if self.view.is_committed(checkpoint) {
            return self.check_fence();
        }
        if !self.view.published().contains(&checkpoint) {
            return Err(Error::internal(format!(
                "checkpoint {checkpoint} is committed and was not published"
            )));
        }
        self.append(LogEvent::Committed { checkpoint })
    }

    /// Says that nobody will restore these checkpoints any more. Their files may be deleted once
    /// this has returned `Ok`, and not before: a successor might restore one of them.
    ///
    /// # Errors
    /// A permanent error when fenced; a retryable one when the outcome is unknown.
    pub fn retire(&mut self, checkpoints: &[CheckpointId]) -> Result<()> {
        let mut known = checkpoints.to_vec();
        known.retain(|checkpoint| self.view.published().contains(checkpoint));
        if known.is_empty() {
            return self.check_fence();
        }
        if known.iter().any(|checkpoint| self.view.published().last() == Some(checkpoint)) {
            return Err(Error::internal("the newest checkpoint cannot be retired"));
        }
        self.append(LogEvent::Retire { checkpoints: known })
    }

    fn append(&mut self, event: LogEvent) -> Result<()> {
        self.check_fence()?;
        // Before the event, not after it: so nothing lies between an entry that stands and the
        // caller who is told so.
        if self.view.next_slot() - self.oldest > COMPACT_AFTER_ENTRIES {
            // One that fails is tried again next time; the event shows whether it was a fence.
            if let Err(error) = self.compact() {
                tracing::warn!(job = self.layout.job_path(), %error, "cannot compact the log");
            }
        }
        self.append_entry(event)
    }

    fn append_entry(&mut self, event: LogEvent) -> Result<()> {
        self.check_fence()?;
        let entry = LogEntry::new(self.writer.clone(), event);
        loop {
            match write(&*self.storage, &self.layout, self.view.next_slot(), &entry)? {
                Written::Stands => return self.view.apply(&entry),
                // At most one entry of ours can be in doubt, so this does not go round twice.
                Written::Earlier(earlier) => self.view.apply(&earlier)?,
                Written::Taken(by) => {
                    return self.fence(format!("generation {} has claimed the job", by.writer.generation));
                }
                Written::Superseded => {
                    return self.fence("a later generation has gone on with the log".into());
                }
            }
        }
    }

    fn compact(&mut self) -> Result<()> {
        self.append_entry(self.view.snapshot())?;
        let snapshot = self.view.next_slot() - 1;
        for slot in list_slots(&*self.storage, &self.layout)? {
            if slot < snapshot {
                self.storage.delete(&self.layout.log_entry(slot))?;
            }
        }
        self.oldest = snapshot;
        Ok(())
    }

    fn fence(&mut self, why: String) -> Result<()> {
        tracing::warn!(job = self.layout.job_path(), generation = self.writer.generation, why, "fenced");
        self.fenced_by = Some(why);
        self.check_fence()
    }

    fn check_fence(&self) -> Result<()> {
        let Some(why) = &self.fenced_by else { return Ok(()) };
        let (job, own) = (self.layout.job_path(), self.writer.generation);
        Err(Error::external(format!("job {job}: generation {own} is fenced: {why}")).permanent())
    }
}

/// Writes an entry into a slot and finds out what became of it.
fn write(
    storage: &dyn CheckpointStorage,
    layout: &JobLayout,
    slot: u64,
    entry: &LogEntry,
) -> Result<Written> {
    let path = layout.log_entry(slot);
    let mut last_error = Error::internal("a log entry was never put");
    for _ in 0..PUT_TRIES {
        let put = match storage.put_if_absent(&path, entry.encode()?) {
            Ok(outcome) => Some(outcome),
            Err(error) => {
                last_error = error;
                None
            }
        };
        let found = match put {
            Some(PutOutcome::Created) => Found::Nothing,
            _ => match read_entry(storage, layout, slot) {
                Ok(found) => found.map_or(Found::Nothing, Found::Entry),
                // A damaged entry stays damaged.
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => {
                    last_error = error;
                    Found::Unreadable
                }
            },
        };
        match decide(entry, put, found) {
            Decision::Again => {}
            Decision::Earlier(earlier) => return Ok(Written::Earlier(earlier)),
            Decision::Taken(by) => return Ok(Written::Taken(by)),
            Decision::Superseded => return Ok(Written::Superseded),
            Decision::Verify => match list_slots(storage, layout) {
                Ok(listed) if is_last(slot, &listed) => return Ok(Written::Stands),
                Ok(_) => return Ok(Written::Superseded),
                Err(error) => last_error = error,
            },
        }
    }
    Err(last_error.context(format!("log entry {path}, outcome unknown")))
}
