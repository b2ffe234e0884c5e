//! The federated source's enumerator: facts in, assignments out. Pure.
//!
//! The rules it lives by:
//! - A split that nobody owns and that the topology lists is assigned at once, to the reader with
//!   the fewest splits of its cluster. The same facts give the same assignments.
//! - A holding that is away keeps its splits and offsets (W2). One that is not listed any more
//!   gives its splits back, and their offsets are kept for its return (F6).
//! - The end of a bounded reading is fixed once, when a partition is first seen, and is part of
//!   its position from then on. No reader is told "no more" before every listed holding was seen
//!   whole.
//! - What a reader holds is also remembered here with the position it was given, so that a split
//!   can never be forgotten; what readers say is newer and wins.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thalweg_engine::Result;
use thalweg_engine::source::{Enumerator, EnumeratorAction, EnumeratorEvent, SplitId, SplitState};

use super::bounds::{Starts, Until, end_offset, start_offset};
use super::fact::{ENCODING_VERSION, Facts, HoldingFact, Status, decode, encode};
use super::split::{Partition, Position, split_state};

/// (cluster, physical topic).
type Holding = (String, String);

/// What an enumerator is told once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bounds {
    pub starts: Starts,
    pub until: Option<Until>,
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
}

impl Entry {
    fn position(&self) -> Position {
        Position { next: self.next, end: self.end }
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
}

pub(crate) struct FederatedEnumerator {
    bounds: Bounds,
    state: State,
    away: BTreeSet<String>,
    /// Clusters that were looked at in this attempt, reached or not.
    looked: BTreeSet<String>,
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
            None => State { version: ENCODING_VERSION, ..State::default() },
        };
        Ok(FederatedEnumerator {
            bounds,
            state,
            away: BTreeSet::new(),
            looked: BTreeSet::new(),
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
        Ok(())
    }

    /// A split comes back with its position.
    fn put_back(&mut self, split: &SplitState) -> Result<()> {
        let position = Position::decode(&split.position)?;
        Partition::parse(&split.id)?;
        let place = if position.is_at_end() { Place::Finished } else { Place::Free };
        let given = Entry { place, next: position.next, end: position.end };
        let entry = self.state.splits.entry(split.id.0.to_string()).or_insert(given);
        entry.place = place;
        if given.next >= entry.next {
            entry.next = given.next;
            entry.end = given.end.or(entry.end);
        }
        Ok(())
    }

    fn discovered(&mut self, facts: &Facts) {
        self.state.listed =
            facts.holdings.iter().map(|fact| (fact.cluster.clone(), fact.topic.clone())).collect();
        self.away = facts
            .holdings
            .iter()
            .filter(|fact| fact.reachable == Some(false))
            .map(|fact| fact.cluster.clone())
            .collect();
        for fact in &facts.holdings {
            if fact.reachable.is_some() {
                self.looked.insert(fact.cluster.clone());
            }
            self.learn(fact);
        }
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
                    let place =
                        if (Position { next, end }).is_at_end() { Place::Finished } else { Place::Free };
                    self.state.splits.insert(id.0.to_string(), Entry { place, next, end });
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

    /// Takes back what is not listed any more.
    fn release_unlisted(&mut self, actions: &mut Vec<EnumeratorAction>) {
        let mut releases: BTreeMap<u32, Vec<SplitId>> = BTreeMap::new();
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
            if entry.place != Place::Free || waits_for_end || !Self::is_listed(&self.state.listed, id) {
                continue;
            }
            let subtask = load.lightest(cluster_of(id));
            load.add(cluster_of(id), subtask);
            entry.place = Place::Owned(subtask);
            let id = SplitId(id.as_str().into());
            assigned.entry(subtask).or_default().push(split_state(&id, entry.position()));
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
        Status {
            version: ENCODING_VERSION,
            listed: self.state.listed.iter().cloned().collect(),
            away: self.away.iter().cloned().collect(),
            unlooked: undiscovered.difference(&self.looked).cloned().collect(),
            undiscovered: undiscovered.into_iter().collect(),
        }
    }

    /// What follows from what is known now. Splits are given before the status that may lift a
    /// hold: a reader's watermark must not pass records that it is about to be given.
    fn decide(&mut self) -> Result<Vec<EnumeratorAction>> {
        let mut actions = Vec::new();
        let Some(parallelism) = self.parallelism else {
            return Ok(actions);
        };
        self.release_unlisted(&mut actions);
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
                self.discovered(&facts);
            }
            EnumeratorEvent::Finished { split, .. } => {
                self.put_back(&split)?;
                if let Some(entry) = self.state.splits.get_mut(&*split.id.0) {
                    entry.place = Place::Finished;
                }
            }
            EnumeratorEvent::Released { splits, .. } => {
                for split in &splits {
                    // One that was said twice may be with another reader already.
                    let entry = self.state.splits.get(&*split.id.0);
                    if entry.is_none_or(|entry| matches!(entry.place, Place::Releasing(_))) {
                        self.put_back(split)?;
                    }
                }
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
