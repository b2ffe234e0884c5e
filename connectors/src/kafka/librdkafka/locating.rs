//! Finds out, on a thread of its own, what became of partitions whose offset is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use thalweg_engine::Result;
use thalweg_engine::operator::Waker;

use super::questions;
use crate::kafka::client::{Located, Place, TopicMetadata};

/// How long a question may take.
const ANSWER_BOUND: Duration = Duration::from_secs(2);
/// How often it is asked while there is no answer.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What is asked and what was found.
#[derive(Debug, Default)]
pub(super) struct Locating(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    wanted: BTreeMap<String, BTreeSet<i32>>,
    found: Vec<Located>,
    asking: bool,
}

impl Locating {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds partitions. True when the caller has to see to a thread that runs [`Locating::ask`].
    pub fn want(&self, partitions: &[(&str, i32)]) -> bool {
        let mut state = self.lock();
        for &(topic, partition) in partitions {
            state.wanted.entry(topic.to_string()).or_default().insert(partition);
        }
        !state.wanted.is_empty() && !std::mem::replace(&mut state.asking, true)
    }

    /// Nobody asks after all.
    pub fn not_asking(&self) {
        self.lock().asking = false;
    }

    /// What was found since the last call.
    pub fn take(&self) -> Vec<Located> {
        std::mem::take(&mut self.lock().found)
    }

    /// The next to ask about; `None` when there is nothing, and then nobody asks any more.
    fn next(&self) -> Option<BTreeMap<String, BTreeSet<i32>>> {
        let mut state = self.lock();
        state.asking = !state.wanted.is_empty();
        state.asking.then(|| state.wanted.clone())
    }

    /// Asks until everything is found, or until `over`.
    pub fn ask<C: ClientContext>(&self, client: &Client<C>, waker: &Waker, over: &AtomicBool) {
        while let Some(wanted) = self.next() {
            if over.load(Ordering::Acquire) {
                return;
            }
            let mut silent = false;
            for (topic, partitions) in wanted {
                let partitions: Vec<i32> = partitions.into_iter().collect();
                match locate(client, &topic, &partitions) {
                    Ok(found) => {
                        silent |= found.len() < partitions.len();
                        self.found(found);
                        waker.wake();
                    }
                    Err(error) => {
                        tracing::debug!(topic, %error, "what became of partitions is not known yet");
                        silent = true;
                    }
                }
            }
            if silent {
                std::thread::sleep(ASK_AGAIN);
            }
        }
    }

    fn found(&self, found: Vec<Located>) {
        let mut state = self.lock();
        for located in &found {
            if let Some(wanted) = state.wanted.get_mut(&located.topic) {
                wanted.remove(&located.partition);
            }
        }
        state.wanted.retain(|_, partitions| !partitions.is_empty());
        state.found.extend(found);
    }
}

/// Those of the partitions that the cluster has.
fn locate<C: ClientContext>(client: &Client<C>, topic: &str, partitions: &[i32]) -> Result<Vec<Located>> {
    let TopicMetadata::Present { id, .. } = questions::topic(client, topic, ANSWER_BOUND)? else {
        return Ok(Vec::new());
    };
    let ask = |place| questions::offsets(client, topic, partitions, place, ANSWER_BOUND);
    let (oldest, end) = (ask(Place::Oldest)?, ask(Place::End)?);
    let located = |&partition: &i32| {
        let (&oldest, &end) = (oldest.get(&partition)?, end.get(&partition)?);
        Some(Located { topic: topic.to_string(), partition, id, oldest, end })
    };
    Ok(partitions.iter().filter_map(located).collect())
}
