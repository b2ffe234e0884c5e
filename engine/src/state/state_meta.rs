//! What a snapshot says about the states in it: their ids, names and kinds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codec::Codec;
use super::key_encoding::KEY_HASH_SEED;
use super::unit::Epoch;
use crate::checkpoint::KeyedHandle;
use crate::{Context, Error, Result};

/// What a state is. The discriminants are part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum StateKind {
    Value,
    List,
    Map,
}

impl std::fmt::Display for StateKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StateKind::Value => "value",
            StateKind::List => "list",
            StateKind::Map => "map",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StateEntry {
    id: u32,
    name: String,
    kind: StateKind,
}

/// The wire form.
#[derive(Serialize, Deserialize)]
struct Wire {
    states: Vec<StateEntry>,
    next_epoch: Epoch,
    max_parallelism: u32,
}

/// The states that a store holds.
#[derive(Clone, Debug, Default)]
pub(super) struct StateMeta {
    by_name: BTreeMap<String, StateEntry>,
    /// The first epoch that nothing was written under.
    pub(super) next_epoch: Epoch,
}

/// A state's id: the same in every subtask and whatever the order in which states are asked for.
fn id_of(name: &str) -> u32 {
    xxh3_64_with_seed(name.as_bytes(), KEY_HASH_SEED) as u32
}

impl StateMeta {
    /// What the handles of a restore hold, together.
    ///
    /// # Errors
    /// A user error when a handle was written under another number of key groups; an internal
    /// one when a handle's meta is damaged or two contradict each other.
    pub(super) fn restored<'a>(
        handles: impl Iterator<Item = &'a KeyedHandle>,
        max_parallelism: u32,
    ) -> Result<StateMeta> {
        let mut meta = StateMeta::default();
        for handle in handles {
            let wire: Wire =
                Codec::decode(&handle.meta).context(|| "the snapshot's list of states".to_string())?;
            if wire.max_parallelism != max_parallelism {
                return Err(Error::user(format!(
                    "the checkpoint was taken with max_parallelism {}, the job has {max_parallelism}; it \
                     cannot change in a job's life",
                    wire.max_parallelism
                )));
            }
            meta.next_epoch = meta.next_epoch.max(wire.next_epoch);
            for entry in wire.states {
                meta.add(&entry.name, entry.kind)?;
            }
        }
        Ok(meta)
    }

    /// Registers a state; answers its id.
    ///
    /// # Errors
    /// A user error when the state was of another kind, or its id is taken.
    pub(super) fn add(&mut self, name: &str, kind: StateKind) -> Result<u32> {
        let id = id_of(name);
        if let Some(entry) = self.by_name.get(name) {
            if entry.kind != kind {
                return Err(Error::user(format!(
                    "state {name:?} was a {} state and is now asked for as a {kind} state; give the new one \
                     another name",
                    entry.kind
                )));
            }
            return Ok(id);
        }
        if let Some(other) = self.by_name.values().find(|entry| entry.id == id) {
            return Err(Error::user(format!(
                "the names of the states {name:?} and {:?} have the same hash; rename one",
                other.name
            )));
        }
        self.by_name.insert(name.to_string(), StateEntry { id, name: name.to_string(), kind });
        Ok(id)
    }

    /// The wire form.
    ///
    /// # Errors
    /// None in practice.
    pub(super) fn to_bytes(&self, next_epoch: Epoch, max_parallelism: u32) -> Result<Vec<u8>> {
        let states = self.by_name.values().cloned().collect();
        Codec::to_vec(&Wire { states, next_epoch, max_parallelism })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_vector_pins_ids_and_the_wire_form() {
        let mut meta = StateMeta::default();
        assert_eq!(meta.add("seen", StateKind::Value).unwrap(), id_of("seen"));
        meta.add("rows", StateKind::Map).unwrap();
        let bytes = meta.to_bytes(3, 128).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "0102fc6cb07bcf04726f777302fc68a04b36047365656e000380");
    }

    #[test]
    fn a_state_that_changes_its_kind_is_refused_by_name() {
        let mut meta = StateMeta::default();
        meta.add("seen", StateKind::Value).unwrap();
        let error = meta.add("seen", StateKind::List).unwrap_err().to_string();
        assert!(error.contains("\"seen\" was a value state and is now asked for as a list state"), "{error}");
    }
}
