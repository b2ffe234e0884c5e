//! What of a checkpoint a job takes over (H7): facts about both in, a table out. Pure.
//!
//! The rules:
//! - state is found by uid; where the checkpoint has nothing under it, by the uids that the operator
//!   had before, and in checkpoints of versions that kept no identities by the one they derived;
//! - state that no operator takes over is *gone*, state whose identity is another is *changed*: both
//!   are refused, unless the job's owner allows each by name;
//! - an operator that the checkpoint has nothing for is *new*, and starts empty.

#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::CheckpointId;
use crate::graph::Uid;
use crate::state::StateIdentity;
use crate::{Error, Result};

/// What a checkpoint holds of one operator that has state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldState {
    /// The uid under which it was kept.
    pub uid: Uid,
    /// What it is; `None` in checkpoints of versions that did not keep it.
    pub identity: Option<StateIdentity>,
    /// What there is of it, for people: `the state of 2 instances`; `None` when there is nothing to
    /// lose, as of a sink whose output is all committed.
    pub what: Option<String>,
}

/// An operator of the job that has state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobState {
    /// Its uid.
    pub uid: Uid,
    /// What its state is.
    pub identity: StateIdentity,
    /// Uids that it had in earlier versions of the job.
    pub uids_before: Vec<Uid>,
    /// The uid that versions without identities derived for it, if it has no name.
    pub uid_by_place: Option<Uid>,
}

/// Changes that the job's owner allows, by uid. One that is not needed changes nothing, so it does no
/// harm where it is left standing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedChanges {
    /// State of these may be dropped when the job has no operator for it.
    pub dropped: BTreeSet<String>,
    /// These may start empty when their state has become another.
    pub start_empty: BTreeSet<String>,
    /// Nothing is taken over: the job starts over.
    pub start_over: bool,
}

/// A checkpoint, as far as it is compared with a job.
#[derive(Clone, Debug)]
pub struct HeldJob {
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// Whether the job had come to its end.
    pub is_finished: bool,
    /// The number of key groups.
    pub max_parallelism: u32,
    /// What it holds.
    pub states: Vec<HeldState>,
}

/// What becomes of one operator's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Taken over, from under this uid.
    Kept {
        /// The uid in the checkpoint.
        from: Uid,
    },
    /// The checkpoint has nothing for it: it starts empty.
    New,
    /// The job has no operator for it.
    Gone {
        /// Whether it may be dropped.
        allowed: bool,
    },
    /// It is another's state now.
    Changed {
        /// The uid in the checkpoint.
        from: Uid,
        /// In which way, for people.
        differences: Vec<String>,
        /// Whether the operator may start empty.
        allowed: bool,
    },
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedState {
    /// The job's uid; the checkpoint's where it is gone.
    pub uid: Uid,
    /// What becomes of it.
    pub fate: Fate,
    /// What the checkpoint holds; `None` where it is new.
    pub held: Option<HeldState>,
    /// What the job keeps; `None` where it is gone.
    pub wanted: Option<StateIdentity>,
}

/// The table: what a job takes over from a checkpoint. `Display` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarryOver {
    /// Which checkpoint.
    pub checkpoint: CheckpointId,
    /// Whether the job had come to its end there.
    pub is_finished: bool,
    /// Whether the job starts over in spite of it.
    pub starts_over: bool,
    /// In the order of uids.
    pub rows: Vec<CarriedState>,
    /// The checkpoint's number of key groups and the job's, where they differ.
    key_groups: Option<(u32, u32)>,
}

/// Decides what `job`, of `max_parallelism` key groups, takes over.
pub fn carry_over(
    held: &HeldJob,
    job: &[JobState],
    max_parallelism: u32,
    allowed: &AllowedChanges,
) -> CarryOver {
    let todays: BTreeSet<&Uid> = job.iter().map(|state| &state.uid).collect();
    let mut taken: BTreeSet<&Uid> = BTreeSet::new();
    let mut rows = Vec::new();
    for state in job {
        let found = found_for(state, held, &todays).filter(|_| !allowed.start_over);
        let fate = match found {
            None => Fate::New,
            Some(found) => {
                taken.insert(&found.uid);
                fate_of(state, found, allowed)
            }
        };
        rows.push(CarriedState {
            uid: state.uid.clone(),
            fate,
            held: found.cloned(),
            wanted: Some(state.identity.clone()),
        });
    }
    let left = held.states.iter().filter(|state| !taken.contains(&state.uid) && state.what.is_some());
    for state in left {
        let allowed = allowed.start_over || allowed.dropped.contains(state.uid.as_str());
        let (uid, fate) = (state.uid.clone(), Fate::Gone { allowed });
        rows.push(CarriedState { uid, fate, held: Some(state.clone()), wanted: None });
    }
    rows.sort_by(|one, other| one.uid.cmp(&other.uid));
    let differ = held.max_parallelism != max_parallelism && !allowed.start_over;
    CarryOver {
        checkpoint: held.checkpoint,
        is_finished: held.is_finished,
        starts_over: allowed.start_over,
        rows,
        key_groups: differ.then_some((held.max_parallelism, max_parallelism)),
    }
}

/// The state in the checkpoint that is this operator's.
fn found_for<'a>(state: &JobState, held: &'a HeldJob, todays: &BTreeSet<&Uid>) -> Option<&'a HeldState> {
    let under = |uid: &Uid| held.states.iter().find(|state| state.uid == *uid);
    // What has today's name of another operator is that one's.
    let before = state.uids_before.iter().filter(|uid| !todays.contains(uid)).find_map(under);
    let by_place = state.uid_by_place.iter().filter(|uid| !todays.contains(uid)).find_map(under);
    under(&state.uid).or(before).or(by_place.filter(|found| found.identity.is_none()))
}

fn fate_of(state: &JobState, found: &HeldState, allowed: &AllowedChanges) -> Fate {
    let differences = found.identity.as_ref().map(|identity| identity.differences(&state.identity));
    match differences.filter(|differences| !differences.is_empty()) {
        None => Fate::Kept { from: found.uid.clone() },
        Some(_) if found.what.is_none() => Fate::New,
        Some(differences) => Fate::Changed {
            from: found.uid.clone(),
            differences,
            allowed: allowed.start_empty.contains(state.uid.as_str()),
        },
    }
}

impl CarryOver {
    /// The uid in the checkpoint under which an operator's state is kept, and its uid in the job.
    pub fn kept(&self) -> impl Iterator<Item = (&Uid, &Uid)> {
        self.rows.iter().filter_map(|row| match &row.fate {
            Fate::Kept { from } => Some((from, &row.uid)),
            _ => None,
        })
    }

    /// Refuses what is gone or changed and not allowed.
    ///
    /// # Errors
    /// A user error that names each of them, says what it was and is, and what to do.
    pub fn check(&self) -> Result<()> {
        let refused = self.refused();
        if refused.is_empty() {
            return Ok(());
        }
        let refused = refused.join("\n  ");
        Err(Error::user(format!(
            "the job does not fit checkpoint {} in its store, and nothing was run:\n  {refused}",
            self.checkpoint
        )))
    }
}
