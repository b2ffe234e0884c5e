//! Uploads segments as they fill, beside processing: one thread for an instance of the sink, begun
//! with the first segment that is full before its barrier. Memory is bounded (files are streamed)
//! and so is the queue (by the disk bound of staging).
//!
//! The rules: a segment that cannot be uploaded is tried again until it is, while the sink lives;
//! when the sink goes, what was uploaded and never prepared is taken back, for no manifest will
//! name it. A process that is killed leaves such segments to its successor's sweep of orphans.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Thread;
use std::time::Duration;

use thalweg_engine::checkpoint::{CancelOnDrop, Cancellation, CheckpointStorage};
use thalweg_engine::metrics::Counter;
use thalweg_engine::{Error, Result};

use super::staging::SealedSegment;

/// The first wait before a segment is tried again.
const BACKOFF: Duration = Duration::from_millis(50);
/// The longest one.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// The segments of one instance that are on their way.
pub(super) struct Uploads {
    segments: Option<Sender<Arc<SealedSegment>>>,
    closing: CancelOnDrop,
    thread: Thread,
}

impl Uploads {
    /// Starts the thread.
    ///
    /// # Errors
    /// An external error when there is none to be had.
    pub(super) fn start(storage: Arc<dyn CheckpointStorage>, failures: Counter) -> Result<Uploads> {
        let (segments, full) = channel();
        let closing = CancelOnDrop::default();
        let uploader = Uploader { storage, failures, closing: closing.0.clone() };
        let spawned = std::thread::Builder::new()
            .name("prism-upload".into())
            .spawn(move || uploader.run(&full))
            .map_err(|error| Error::external("no thread to upload segments on").caused_by(error))?;
        Ok(Uploads { segments: Some(segments), closing, thread: spawned.thread().clone() })
    }

    /// Uploads a segment when its turn comes.
    pub(super) fn push(&self, segment: Arc<SealedSegment>) {
        // The thread is there as long as this is: a panic of the store's is the only other way for
        // it to end, and then the snapshot uploads what is left.
        if let Some(segments) = &self.segments {
            let _ = segments.send(segment);
        }
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.closing.0.cancel();
        self.segments = None;
        self.thread.unpark();
    }
}

struct Uploader {
    storage: Arc<dyn CheckpointStorage>,
    failures: Counter,
    closing: Cancellation,
}

impl Uploader {
    fn run(self, full: &Receiver<Arc<SealedSegment>>) {
        let mut unprepared: Vec<Arc<SealedSegment>> = Vec::new();
        while let Ok(segment) = full.recv() {
            unprepared.retain(|segment| !segment.is_prepared());
            self.upload(&segment);
            unprepared.push(segment);
        }
        for segment in unprepared {
            if let Err(error) = segment.discard(&*self.storage) {
                tracing::debug!(%error, "a segment that nobody needs is left to the sweep of orphans");
            }
        }
    }

    fn upload(&self, segment: &SealedSegment) {
        let mut backoff = BACKOFF;
        while !self.closing.is_cancelled() {
            let Err(error) = segment.upload(&*self.storage, &self.closing) else { return };
            self.failures.add(1);
            if backoff == BACKOFF {
                tracing::warn!(%error, "a segment could not be uploaded; trying again");
            }
            std::thread::park_timeout(backoff);
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}
