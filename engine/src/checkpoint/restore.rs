//! Which checkpoint a restore takes: the newest that the log has published, or, where the user
//! allows it, the next older one when that is damaged.

use std::collections::BTreeSet;

use super::{CheckpointId, CheckpointStorage, JobLayout, LogView, Manifest};
use crate::{Error, ErrorKind, Result};

/// What a restore may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestorePolicy {
    /// Whether an older checkpoint may be taken when the newest is damaged.
    pub allow_older: bool,
    /// Checkpoints that a task found a damaged file in: not tried again.
    pub damaged: BTreeSet<CheckpointId>,
}

/// A checkpoint that a restore could take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub checkpoint: CheckpointId,
    /// The newer checkpoint whose results sinks have already committed: restored from here, the
    /// job writes them once more.
    pub committed_past: Option<CheckpointId>,
}

/// What was chosen.
#[derive(Debug)]
pub struct Selected {
    /// The manifest of the checkpoint.
    pub manifest: Manifest,
    /// What the job's owner must be told, in words: newer checkpoints that were passed over and
    /// why, and sinks that have committed past this one.
    pub warnings: Vec<String>,
}

/// The checkpoints that a restore could take, newest first.
pub fn candidates(view: &LogView) -> Vec<Candidate> {
    let newest_first = view.published().iter().rev();
    newest_first
        .map(|&checkpoint| Candidate {
            checkpoint,
            committed_past: view.committed().filter(|committed| committed.number > checkpoint.number),
        })
        .collect()
}

/// Reads the manifest to restore from. `None` when nothing was ever published: a fresh start.
///
/// # Errors
/// An error of [`ErrorKind::Damaged`] that names what is damaged, when no other checkpoint may be or
/// can be taken; one of [`ErrorKind::Store`] when the store cannot be reached or refuses (a
/// checkpoint is never passed over for that).
pub fn select(
    storage: &dyn CheckpointStorage,
    layout: &JobLayout,
    view: &LogView,
    policy: &RestorePolicy,
) -> Result<Option<Selected>> {
    let mut warnings = Vec::new();
    let mut last_error = None;
    for candidate in candidates(view) {
        let checkpoint = candidate.checkpoint;
        let read = if policy.damaged.contains(&checkpoint) {
            Err(Error::damaged(format!("checkpoint {checkpoint} has a damaged file")))
        } else {
            Manifest::read(storage, layout, checkpoint)
        };
        match read {
            Ok(manifest) => {
                if let Some(past) = candidate.committed_past {
                    warnings.push(format!(
                        "restoring checkpoint {checkpoint}, but sinks have committed up to {past}: \
                         what lies between is written once more"
                    ));
                }
                return Ok(Some(Selected { manifest, warnings }));
            }
            // What could not be read may be whole.
            Err(error) if error.kind() != ErrorKind::Damaged || !policy.allow_older => return Err(error),
            Err(error) => {
                warnings.push(format!("passing over checkpoint {checkpoint}: {error}"));
                last_error = Some(error);
            }
        }
    }
    last_error.map_or(Ok(None), |error| Err(error.context("no checkpoint can be restored")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::super::fault::{Call, Fault};
    use super::super::{FaultyStorage, JobLog, MemoryStorage};
    use super::*;

    fn id(number: u64) -> CheckpointId {
        CheckpointId { generation: 1, number }
    }

    /// A job with checkpoints 1 to 3 published, committed up to `committed`.
    fn job(committed: Option<u64>) -> (Arc<MemoryStorage>, JobLayout, JobLog) {
        let storage = Arc::new(MemoryStorage::new());
        let layout = JobLayout::new("job").unwrap();
        let mut log = JobLog::claim(storage.clone(), layout.clone(), "n".into()).unwrap();
        for number in 1..=3 {
            Manifest::new("job", id(number), 7, 128).write(&*storage, &layout).unwrap();
            log.publish(id(number)).unwrap();
        }
        if let Some(number) = committed {
            log.committed(id(number)).unwrap();
        }
        (storage, layout, log)
    }

    #[test]
    fn the_newest_is_taken_and_nothing_published_is_a_fresh_start() {
        let (storage, layout, log) = job(None);
        let selected = select(&*storage, &layout, log.view(), &RestorePolicy::default()).unwrap().unwrap();
        assert_eq!((selected.manifest.checkpoint, selected.warnings.len()), (id(3), 0));
        let fresh = select(&*storage, &layout, &LogView::default(), &RestorePolicy::default()).unwrap();
        assert!(fresh.is_none());
    }

    #[test]
    fn a_damaged_manifest_is_named_and_the_older_one_taken_only_when_allowed() {
        let (storage, layout, log) = job(Some(3));
        storage.put(&layout.manifest(id(3)), Bytes::from("rubbish")).unwrap();
        let strict = RestorePolicy::default();
        let error = select(&*storage, &layout, log.view(), &strict).unwrap_err();
        assert!(error.to_string().contains(&layout.manifest(id(3))), "{error}");
        assert_eq!(error.kind(), ErrorKind::Damaged);

        let lax = RestorePolicy { allow_older: true, ..strict };
        let selected = select(&*storage, &layout, log.view(), &lax).unwrap().unwrap();
        assert_eq!(selected.manifest.checkpoint, id(2));
        assert!(selected.warnings[0].contains("passing over checkpoint 1-3"), "{:?}", selected.warnings);
        assert!(selected.warnings[1].contains("committed up to 1-3"), "{:?}", selected.warnings);

        // A task found a damaged file in 2; the manifest of 1 is gone.
        storage.delete(&layout.manifest(id(1))).unwrap();
        let lax = RestorePolicy { damaged: BTreeSet::from([id(2)]), ..lax };
        let error = select(&*storage, &layout, log.view(), &lax).unwrap_err();
        assert!(error.to_string().contains("no checkpoint can be restored"), "{error}");
    }

    #[test]
    fn a_store_that_is_away_or_refuses_never_makes_a_restore_take_an_older_one() {
        let (storage, layout, log) = job(None);
        let lax = RestorePolicy { allow_older: true, ..RestorePolicy::default() };
        for (fault, retryable) in [(Fault::FailBefore, true), (Fault::Refuse, false)] {
            // Only the newest checkpoint's manifest: the others could be read.
            let newest = layout.manifest(id(3));
            let plan = move |call: &Call<'_>| if call.path == newest { fault } else { Fault::None };
            let faulty = FaultyStorage::new(storage.clone(), layout.clone(), Box::new(plan));
            let error = select(&faulty, &layout, log.view(), &lax).unwrap_err();
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Store, retryable), "{error}");
        }
    }

    #[test]
    fn candidates_say_which_commits_they_would_repeat() {
        let (_, _, log) = job(Some(2));
        let past: Vec<_> =
            candidates(log.view()).iter().map(|c| (c.checkpoint.number, c.committed_past)).collect();
        assert_eq!(past, [(3, None), (2, None), (1, Some(id(2)))]);
    }
}
