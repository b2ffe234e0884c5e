//! What the driver has done to the store in the background: publications, commits, tidying.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{DriverEvent, JobDriver};
use crate::checkpoint::{CheckpointId, CheckpointStorage};
use crate::cluster::Cause;
use crate::cluster::decision::{CheckpointContent, Event};
use crate::cluster::job_store::{JobStore, Publication};
use crate::graph::Uid;
use crate::sink::{Committable, Committer};
use crate::{Error, Result};

impl JobDriver {
    pub(super) fn publish(&mut self, content: CheckpointContent) {
        self.publishing_since = self.environment.clock.monotonic();
        let store = self.store.clone();
        let parallelism = self.parallelism();
        let checkpoint = content.checkpoint;
        let publish = move || {
            let publication = store.publish(content, parallelism);
            published(&store, checkpoint, publication)
        };
        let store = self.store.clone();
        self.background(&format!("publish {checkpoint}"), publish, move |error| {
            published(&store, checkpoint, Publication::Failed(error))
        });
    }

    pub(super) fn settle(&mut self, checkpoint: CheckpointId) {
        let store = self.store.clone();
        let settle = move || {
            let publication = store.settle().unwrap_or_else(|| {
                Publication::Failed(Error::internal(format!("checkpoint {checkpoint} is not in doubt")))
            });
            published(&store, checkpoint, publication)
        };
        let store = self.store.clone();
        self.background(&format!("settle {checkpoint}"), settle, move |error| {
            published(&store, checkpoint, Publication::Failed(error))
        });
    }

    pub(super) fn tidy(&mut self) {
        let (store, now) = (self.store.clone(), self.environment.clock.monotonic());
        let tidied = || DriverEvent::Coordinator(Event::Tidied);
        let tidy = move || {
            store.tidy(now);
            tidied()
        };
        self.background("tidy", tidy, move |_| tidied());
    }

    fn parallelism(&self) -> BTreeMap<Uid, u32> {
        let chains = self.plan.chains.iter();
        let nodes = chains.flat_map(|chain| chain.nodes.iter().map(|node| (node.0, chain.parallelism)));
        nodes.map(|(node, parallelism)| (self.graph.nodes[node].uid.clone(), parallelism)).collect()
    }

    pub(super) fn commit(&mut self, checkpoint: CheckpointId, committables: Vec<Committable>) {
        let store = self.store.clone();
        let committers = self.committers.clone();
        let now = self.environment.clock.monotonic();
        let (over, storage) = (self.over.clone(), self.environment.storage.clone());
        let commit = move || {
            let committed =
                commit_all(&committers, committables, storage.as_ref(), &|| over.load(Ordering::Acquire))
                    .and_then(|()| store.committed(checkpoint, now));
            DriverEvent::Coordinator(match committed {
                Ok(()) => Event::Committed(checkpoint),
                Err(error) => {
                    let cause = Cause::from(&error);
                    Event::CommitFailed { checkpoint, fenced: store.is_fenced(), cause }
                }
            })
        };
        self.background(&format!("commit {checkpoint}"), commit, move |error| {
            // A sink's own code panicked; what it has done, it may do again.
            let cause = Cause { retryable: true, ..Cause::from(&error) };
            DriverEvent::Coordinator(Event::CommitFailed { checkpoint, fenced: false, cause })
        });
    }
}

fn published(store: &JobStore, checkpoint: CheckpointId, publication: Publication) -> DriverEvent {
    DriverEvent::Coordinator(match publication {
        Publication::Done(known) => Event::Published { checkpoint, known },
        Publication::Failed(error) => {
            Event::PublishFailed { checkpoint, fenced: store.is_fenced(), error: error.to_string() }
        }
        Publication::InDoubt(error) => Event::PublishInDoubt { checkpoint, error: error.to_string() },
    })
}

fn commit_all(
    committers: &BTreeMap<Uid, Arc<dyn Committer>>,
    committables: Vec<Committable>,
    storage: &dyn CheckpointStorage,
    cancelled: &dyn Fn() -> bool,
) -> Result<()> {
    let mut by_uid: BTreeMap<Uid, Vec<Committable>> = BTreeMap::new();
    for committable in committables {
        by_uid.entry(committable.uid.clone()).or_default().push(committable);
    }
    for (uid, committables) in by_uid {
        let committer = committers.get(&uid).ok_or_else(|| {
            Error::user(format!(
                "the checkpoint holds uncommitted output of sink {uid}, which the job no longer has"
            ))
        })?;
        committer.commit(&committables, storage, cancelled)?;
    }
    Ok(())
}
