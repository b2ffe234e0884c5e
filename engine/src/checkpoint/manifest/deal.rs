//! Deals an operator's state out to its instances, at the checkpoint's parallelism or another.
//! Pure.

use std::collections::BTreeMap;

use super::Manifest;
use crate::checkpoint::SnapshotPart;
use crate::graph::Uid;
use crate::state::{KeyGroupRange, RestoredState};
use crate::{Error, Result};

/// See [`Manifest::restored_for`].
pub(super) fn restored_for(
    manifest: &Manifest,
    uid: &Uid,
    subtask: u32,
    parallelism: u32,
    max_parallelism: u32,
) -> Result<RestoredState> {
    if max_parallelism != manifest.max_parallelism {
        return Err(Error::user(format!(
            "max_parallelism is {max_parallelism}, but checkpoint {} was made with {}; it is fixed for a job's life",
            manifest.checkpoint, manifest.max_parallelism
        )));
    }
    if subtask >= parallelism || parallelism > max_parallelism {
        return Err(Error::internal(format!(
            "no subtask {subtask} of {parallelism} in {max_parallelism} key groups"
        )));
    }
    let Some(operator) = manifest.operators.get(uid) else { return Ok(RestoredState::default()) };
    let own = KeyGroupRange::of_subtask(subtask, parallelism, max_parallelism);
    let mut parts = Vec::new();
    let mut lists: BTreeMap<&str, Vec<&(u32, &[Vec<u8>])>> = BTreeMap::new();
    let mut unions: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    let mut list_parts = Vec::new();
    for (owner, part) in manifest.parts(uid) {
        match part {
            SnapshotPart::Keyed(handle) if handle.key_groups.intersection(&own).is_some() => {
                parts.push(part.clone());
            }
            SnapshotPart::List { name, items } => list_parts.push((name.as_str(), (owner, items.as_slice()))),
            SnapshotPart::Union { name, items } => {
                unions.entry(name).or_default().extend(items.iter().cloned());
            }
            SnapshotPart::Keyed(_) | SnapshotPart::Splits(_) | SnapshotPart::Committable(_) => {}
        }
    }
    for (name, held) in &list_parts {
        lists.entry(name).or_default().push(held);
    }
    let same = operator.parallelism == parallelism;
    for (name, held) in lists {
        let items = if same { of_owner(&held, subtask) } else { dealt(&held, subtask, parallelism) };
        if !items.is_empty() {
            parts.push(SnapshotPart::List { name: name.to_owned(), items });
        }
    }
    parts.extend(
        unions
            .into_iter()
            .filter(|(_, items)| !items.is_empty())
            .map(|(name, items)| SnapshotPart::Union { name: name.to_owned(), items }),
    );
    Ok(RestoredState { parts })
}

fn of_owner(held: &[&(u32, &[Vec<u8>])], subtask: u32) -> Vec<Vec<u8>> {
    let own = held.iter().filter(|(owner, _)| *owner == subtask);
    own.flat_map(|(_, items)| items.iter().cloned()).collect()
}

fn dealt(held: &[&(u32, &[Vec<u8>])], subtask: u32, parallelism: u32) -> Vec<Vec<u8>> {
    let count: usize = held.iter().map(|(_, items)| items.len()).sum();
    let bound = |subtask: u32| (count as u64 * u64::from(subtask) / u64::from(parallelism)) as usize;
    let (first, end) = (bound(subtask), bound(subtask + 1));
    let all = held.iter().flat_map(|(_, items)| items.iter());
    all.skip(first).take(end - first).cloned().collect()
}
