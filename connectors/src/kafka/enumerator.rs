//! The federated source's enumerator: facts in, assignments out. Pure.
//!
//! The rules it lives by:
//! - A split that nobody owns and that the topology lists is assigned at once, to the reader with
//!   the fewest splits of its cluster. The same facts give the same assignments. A holding that
//!   nobody has reached yet holds nobody up: its splits follow when it is seen (F2).
//! - A holding that is away keeps its splits and offsets (W2). One that is not listed any more
//!   gives its splits back, and their offsets are kept for its return (F6).
//! - The end of a bounded reading is fixed once, when a partition is first seen, and is part of
//!   its position from then on. No reader is told "no more" before every listed holding was seen
//!   whole.
//! - What a reader holds is also remembered here with the position it was given, so that a split
//!   can never be forgotten, nor owned twice (F9). The newest knowledge wins, whichever offset is
//!   larger: positions carry the number of their assignment, and within one assignment the reader
//!   knows more than we do.
//! - Offsets are of one making of a topic (KIP-516). What is restored waits for the first look at its
//!   cluster, reached or not; where a look shows another id, nothing goes on at an old offset.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thalweg_engine::source::{Enumerator, EnumeratorAction, EnumeratorEvent, SplitId, SplitState};
use thalweg_engine::{Error, Result};

use super::bounds::{OnTopicRecreated, Starts, Until, end_offset, start_offset};
use super::client::TopicId;
use super::fact::{ENCODING_VERSION, Facts, HoldingFact, Status, decode, encode};
use super::split::{Partition, Position, split_state};

/// (cluster, physical topic).
type Holding = (String, String);

/// What an enumerator is told once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    pub starts: Starts,
    pub until: Option<Until>,
    pub on_topic_recreated: OnTopicRecreated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// Nobody reads it.
    Free,
    /// A reader has it.
    Owned(u32),
    /// A reader was asked to give it back.
    Releasing(u32),
    /// Read to its end.
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    place: Place,
    next: i64,
    end: Option<i64>,
    /// As in [`Position`].
    #[serde(default)]
    assignment: u64,
    /// The topic was made anew without it: it is forgotten when its reader has given it back.
    #[serde(default)]
    gone: bool,
}

impl Entry {
    /// One that nobody has read.
    fn new(next: i64, end: Option<i64>) -> Self {
        let at_end = end.is_some_and(|end| next >= end);
        let place = if at_end { Place::Finished } else { Place::Free };
        Entry { place, next, end, assignment: 0, gone: false }
    }
}

/// What goes into the checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    version: u8,
    listed: BTreeSet<Holding>,
    /// Holdings that were seen whole at least once.
    discovered: BTreeSet<Holding>,
    splits: BTreeMap<String, Entry>,
    /// Which making of a topic the offsets are of, by `cluster/topic`.
    #[serde(default)]
    topic_ids: BTreeMap<String, TopicId>,
}

fn topic_key(cluster: &str, topic: &str) -> String {
    format!("{cluster}/{topic}")
}

/// The `cluster/topic` of a split's name.
fn topic_of(id: &str) -> &str {
    id.rsplit_once('/').map_or(id, |(topic, _)| topic)
}

pub(crate) struct FederatedEnumerator {
    bounds: Bounds,
    state: State,
    away: BTreeSet<String>,
    /// Clusters that were looked at in this attempt, reached or not.
    looked: BTreeSet<String>,
    /// The ids of topics as the last look saw them, by `cluster/topic`.
    seen_ids: BTreeMap<String, TopicId>,
    /// How many brokers lead partitions, by cluster.
    brokers: BTreeMap<String, usize>,
    /// Splits to be asked back from their readers.
    recalled: BTreeMap<u32, Vec<SplitId>>,
    parallelism: Option<u32>,
    told: Option<Status>,
    no_more: bool,
}

impl FederatedEnumerator {
    /// A new one, or one that goes on with `restored`.
    ///
    /// # Errors
    /// An external error when the restored bytes cannot be read.
    pub fn new(bounds: Bounds, restored: Option<&[u8]>) -> Result<Self> {
        let state = match restored {
            Some(bytes) => decode(bytes, "the state of a Kafka source")?,
            None => State::default(),
        };
        let state = State { version: ENCODING_VERSION, ..state };
        Ok(FederatedEnumerator {
            bounds,
            state,
            away: BTreeSet::new(),
            looked: BTreeSet::new(),
            seen_ids: BTreeMap::new(),
            brokers: BTreeMap::new(),
            recalled: BTreeMap::new(),
            parallelism: None,
            told: None,
            no_more: false,
        })
    }

    fn start(&mut self, parallelism: u32, held: &[SplitState]) -> Result<()> {
        self.parallelism = Some(parallelism);
        self.told = None;
        self.no_more = false;
        for entry in self.state.splits.values_mut() {
            if entry.place != Place::Finished {
                entry.place = Place::Free;
            }
        }
        for split in held {
            self.put_back(split)?;
        }
        if self.bounds.until.is_none() {
            self.go_on_without_end();
        }
        self.forget_gone();
        Ok(())
    }

    /// A reading that had an end, and has none any more, goes on where it is.
    fn go_on_without_end(&mut self) {
        let mut ended = 0;
        for entry in self.state.splits.values_mut().filter(|entry| entry.end.is_some()) {
            entry.end = None;
            if entry.place == Place::Finished {
                entry.place = Place::Free;
                ended += 1;
            }
        }
        if ended > 0 {
            tracing::info!(splits = ended, "the reading has no end any more: goes on behind the last one");
        }
    }

    /// A split comes back with its position, which counts unless the split was sent elsewhere since.
    fn put_back(&mut self, split: &SplitState) -> Result<()> {
        let position = Position::decode(&split.position)?;
        Partition::parse(&split.id)?;
        let given = Entry::new(position.next, position.end);
        let given = Entry { assignment: position.assignment, ..given };
        let entry = self.state.splits.entry(split.id.0.to_string()).or_insert(given);
        if given.assignment < entry.assignment {
            entry.place = Place::Free;
        } else if !entry.gone {
            *entry = Entry { end: given.end.or(entry.end), ..given };
        }
        Ok(())
    }

    fn discovered(&mut self, facts: &Facts) -> Result<()> {
        self.state.listed =
            facts.holdings.iter().map(|fact| (fact.cluster.clone(), fact.topic.clone())).collect();
        self.away = facts
            .holdings
            .iter()
            .filter(|fact| fact.reachable == Some(false))
            .map(|fact| fact.cluster.clone())
            .collect();
        self.brokers = facts.holdings.iter().map(|fact| (fact.cluster.clone(), fact.brokers)).collect();
        for fact in &facts.holdings {
            if fact.reachable.is_some() {
                self.looked.insert(fact.cluster.clone());
            }
            if self.identify(fact)? {
                self.learn(fact);
            }
        }
        Ok(())
    }

    /// Compares the topic's id with the one that our offsets are of, and starts over with another
    /// one where the job wants that. False: the fact is of a topic that we have no use for yet.
    fn identify(&mut self, fact: &HoldingFact) -> Result<bool> {
        let key = topic_key(&fact.cluster, &fact.topic);
        let Some(id) = fact.topic_id else {
            return Ok(true);
        };
        self.seen_ids.insert(key.clone(), id);
        let known = *self.state.topic_ids.entry(key.clone()).or_insert(id);
        let of_topic = self.state.splits.iter().filter(|(split, _)| topic_of(split) == key);
        let unfinished = of_topic.filter(|(_, entry)| entry.place != Place::Finished).count();
        if known == id || unfinished == 0 {
            self.state.topic_ids.insert(key, id);
            return Ok(true);
        }
        let advice = match (&self.bounds.until, self.bounds.on_topic_recreated) {
            (Some(_), _) => "a bounded reading has its ends in the old one; start the job anew",
            (None, OnTopicRecreated::Fail) => {
                "on_topic_recreated is fail; with restart it is read from its beginning"
            }
            // Which partitions it has is known when it was seen whole.
            (None, OnTopicRecreated::Restart) if !fact.complete => return Ok(false),
            (None, OnTopicRecreated::Restart) => {
                tracing::warn!(topic = key, %known, %id, "the topic was made anew: reading starts over");
                self.start_over(&key, fact);
                self.state.topic_ids.insert(key, id);
                return Ok(true);
            }
        };
        let what = format!("topic {key} was deleted and made anew (its id was {known} and is {id})");
        Err(Error::external(format!("{what}: {advice}")).permanent())
    }

    /// Sends every split of a topic that was made anew to its beginning.
    fn start_over(&mut self, key: &str, fact: &HoldingFact) {
        let begins: BTreeMap<i32, i64> =
            fact.partitions.iter().map(|partition| (partition.partition, partition.low)).collect();
        for (split, entry) in self.state.splits.iter_mut().filter(|(split, _)| topic_of(split) == key) {
            let number = split.rsplit('/').next().and_then(|number| number.parse().ok());
            let begin = number.and_then(|number: i32| begins.get(&number).copied());
            entry.assignment += 1;
            entry.gone = begin.is_none();
            entry.next = begin.unwrap_or(entry.next);
            if let Place::Owned(subtask) = entry.place {
                entry.place = Place::Releasing(subtask);
                self.recalled.entry(subtask).or_default().push(SplitId(split.as_str().into()));
            }
        }
        self.forget_gone();
    }

    /// Forgets what is not there any more and nobody has.
    fn forget_gone(&mut self) {
        self.state.splits.retain(|_, entry| !entry.gone || matches!(entry.place, Place::Releasing(_)));
    }

    fn learn(&mut self, fact: &HoldingFact) {
        let holding = (fact.cluster.clone(), fact.topic.clone());
        let seen_whole = self.state.discovered.contains(&holding);
        for partition in &fact.partitions {
            let id = Partition {
                cluster: fact.cluster.clone(),
                topic: fact.topic.clone(),
                number: partition.partition,
            }
            .id();
            let end = self.bounds.until.as_ref().map(|until| end_offset(until, &fact.cluster, partition));
            match self.state.splits.get_mut(&*id.0) {
                // Restored from a reading without an end.
                Some(entry) if entry.place == Place::Free && entry.end.is_none() => entry.end = end,
                Some(_) => {}
                // The ends of a bounded reading are fixed, and so is what there is to read.
                None if seen_whole && end.is_some() => {}
                None => {
                    let next = start_offset(self.bounds.starts.of(&fact.cluster), partition, seen_whole);
                    self.state.splits.insert(id.0.to_string(), Entry::new(next, end));
                }
            }
        }
        if fact.complete {
            self.state.discovered.insert(holding);
        }
    }

    fn is_listed(listed: &BTreeSet<Holding>, id: &str) -> bool {
        let mut parts = id.split('/');
        match (parts.next(), parts.next()) {
            (Some(cluster), Some(topic)) => listed.contains(&(cluster.to_string(), topic.to_string())),
            _ => false,
        }
    }

    /// Takes back what is not listed any more, and what is to be read from elsewhere.
    fn release(&mut self, actions: &mut Vec<EnumeratorAction>) {
        let mut releases = std::mem::take(&mut self.recalled);
        for (id, entry) in &mut self.state.splits {
            if let Place::Owned(subtask) = entry.place
                && !Self::is_listed(&self.state.listed, id)
            {
                entry.place = Place::Releasing(subtask);
                releases.entry(subtask).or_default().push(SplitId(id.as_str().into()));
            }
        }
        actions.extend(
            releases.into_iter().map(|(subtask, splits)| EnumeratorAction::Release { subtask, splits }),
        );
    }

    /// Deals out what is free, evenly within each cluster and then over all.
    fn assign_free(&mut self, parallelism: u32, actions: &mut Vec<EnumeratorAction>) {
        let mut load = Load::new(parallelism);
        for (id, entry) in &self.state.splits {
            if let Place::Owned(subtask) | Place::Releasing(subtask) = entry.place {
                load.add(cluster_of(id), subtask);
            }
        }
        let bounded = self.bounds.until.is_some();
        let mut assigned: BTreeMap<u32, Vec<SplitState>> = BTreeMap::new();
        for (id, entry) in &mut self.state.splits {
            let waits_for_end = bounded && entry.end.is_none();
            let topic_id = self.state.topic_ids.get(topic_of(id)).copied();
            let is_of_another = self.seen_ids.get(topic_of(id)).is_some_and(|seen| topic_id != Some(*seen));
            let waits_for_look = !self.looked.contains(cluster_of(id)) || is_of_another;
            if entry.place != Place::Free
                || waits_for_end
                || waits_for_look
                || !Self::is_listed(&self.state.listed, id)
            {
                continue;
            }
            let subtask = load.lightest(cluster_of(id));
            load.add(cluster_of(id), subtask);
            entry.place = Place::Owned(subtask);
            entry.assignment += 1;
            let Entry { next, end, assignment, .. } = *entry;
            let position = Position { next, end, assignment, topic_id };
            assigned.entry(subtask).or_default().push(split_state(&SplitId(id.as_str().into()), position));
        }
        actions.extend(
            assigned.into_iter().map(|(subtask, splits)| EnumeratorAction::Assign { subtask, splits }),
        );
    }

    fn status(&self) -> Status {
        let undiscovered: BTreeSet<String> = self
            .state
            .listed
            .iter()
            .filter(|holding| !self.state.discovered.contains(*holding))
            .map(|(cluster, _)| cluster.clone())
            .collect();
        let clusters: BTreeSet<String> =
            self.state.listed.iter().map(|(cluster, _)| cluster.clone()).collect();
        let seen_id = |(cluster, topic): &Holding| {
            let id = *self.seen_ids.get(&topic_key(cluster, topic))?;
            Some((cluster.clone(), topic.clone(), id))
        };
        Status {
            version: ENCODING_VERSION,
            listed: self.state.listed.iter().cloned().collect(),
            away: self.away.iter().cloned().collect(),
            unlooked: clusters.difference(&self.looked).cloned().collect(),
            undiscovered: undiscovered.into_iter().collect(),
            topic_ids: self.state.listed.iter().filter_map(seen_id).collect(),
            brokers: self.brokers.clone().into_iter().collect(),
        }
    }

    /// What follows from what is known now. Splits are given before the status that may lift a
    /// hold: a reader's watermark must not pass records that it is about to be given.
    fn decide(&mut self) -> Result<Vec<EnumeratorAction>> {
        let mut actions = Vec::new();
        let Some(parallelism) = self.parallelism else {
            return Ok(actions);
        };
        self.release(&mut actions);
        if !self.no_more {
            self.assign_free(parallelism, &mut actions);
        }
        let status = self.status();
        let known = !status.listed.is_empty();
        if self.told.as_ref() != Some(&status) && (known || self.told.is_some()) {
            let message = encode(&status)?;
            actions.extend(
                (0..parallelism)
                    .map(|subtask| EnumeratorAction::ToReader { subtask, message: message.clone() }),
            );
            self.told = Some(status.clone());
        }
        let all_given = self.state.splits.iter().all(|(id, entry)| match entry.place {
            Place::Free => !Self::is_listed(&self.state.listed, id),
            _ => true,
        });
        let complete = self.bounds.until.is_some() && known && status.undiscovered.is_empty() && all_given;
        if complete && !self.no_more {
            self.no_more = true;
            actions.push(EnumeratorAction::NoMoreSplits);
        }
        Ok(actions)
    }
}

impl Enumerator for FederatedEnumerator {
    fn handle(&mut self, event: EnumeratorEvent) -> Result<Vec<EnumeratorAction>> {
        match event {
            EnumeratorEvent::Started { parallelism, splits } => self.start(parallelism, &splits)?,
            EnumeratorEvent::Discovered(bytes) => {
                let facts: Facts = decode(&bytes, "the facts about Kafka clusters")?;
                self.discovered(&facts)?;
            }
            EnumeratorEvent::Finished { split, .. } => self.put_back(&split)?,
            EnumeratorEvent::Released { splits, .. } => {
                for split in &splits {
                    // One that was said twice may be with another reader already.
                    let entry = self.state.splits.get(&*split.id.0);
                    if entry.is_none_or(|entry| matches!(entry.place, Place::Releasing(_))) {
                        self.put_back(split)?;
                    }
                }
                self.forget_gone();
            }
            EnumeratorEvent::FromReader { .. } => {}
        }
        self.decide()
    }

    fn snapshot(&self) -> Vec<u8> {
        serde_json::to_vec(&self.state).unwrap_or_default()
    }
}

fn cluster_of(id: &str) -> &str {
    id.split('/').next().unwrap_or(id)
}

/// How many splits each reader has, in all and by cluster.
struct Load {
    total: Vec<usize>,
    by_cluster: BTreeMap<String, Vec<usize>>,
}

impl Load {
    fn new(parallelism: u32) -> Self {
        Load { total: vec![0; parallelism as usize], by_cluster: BTreeMap::new() }
    }

    fn add(&mut self, cluster: &str, subtask: u32) {
        let readers = self.total.len();
        let counts = self.by_cluster.entry(cluster.to_string()).or_insert_with(|| vec![0; readers]);
        for counts in [counts, &mut self.total] {
            if let Some(count) = counts.get_mut(subtask as usize) {
                *count += 1;
            }
        }
    }

    fn lightest(&self, cluster: &str) -> u32 {
        let of_cluster = self.by_cluster.get(cluster);
        let weight = |&subtask: &usize| {
            let in_cluster = of_cluster.and_then(|counts| counts.get(subtask)).copied().unwrap_or(0);
            (in_cluster, self.total.get(subtask).copied().unwrap_or(0), subtask)
        };
        let lightest = (0..self.total.len()).min_by_key(weight).unwrap_or(0);
        u32::try_from(lightest).unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "enumerator_tests.rs"]
mod tests;
