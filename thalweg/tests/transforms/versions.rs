//! Which version of the reference each instance computed with, and which one it may have.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use thalweg::engine::checkpoint::log::read_log;
use thalweg::engine::checkpoint::{CheckpointStorage, JobLayout, Manifest, SnapshotPart};

use crate::tap::Place;

/// A row that left the look-up, also when it never came to count. No row: the instance opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub at: Place,
    pub row: Option<(i64, Option<i64>)>,
}

/// Rows of all instances, in the order in which they left.
#[derive(Clone, Default)]
pub struct Trail(Arc<Mutex<Vec<Placed>>>);

impl Trail {
    pub fn add(&self, placed: impl IntoIterator<Item = Placed>) {
        self.0.lock().unwrap().extend(placed);
    }

    pub fn from(&self, first: usize) -> Vec<Placed> {
        self.0.lock().unwrap()[first..].to_vec()
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// What a run did with its versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Instances that went on with a newer version at a barrier.
    pub in_the_middle: u32,
    /// Instances that computed with what the checkpoint names although the file was newer.
    pub back: u32,
}

impl Changes {
    pub fn add(&mut self, other: Changes) {
        self.in_the_middle += other.in_the_middle;
        self.back += other.back;
    }
}

/// The rules: a row's neighbours are of one version; so are those of an epoch of an instance; and
/// from one epoch to a later one the version changes once at most, and forward. The first
/// rows behind a restore have the version that was restored.
pub fn check(trail: &[Placed], restored: Option<i64>, in_file: i64) -> std::result::Result<Changes, String> {
    let mut epochs: BTreeMap<Place, i64> = BTreeMap::new();
    for Placed { at, row } in trail {
        let Some((id, version)) = row else { continue };
        let version = version.ok_or_else(|| format!("row {id} at {at:?} has neighbours of two versions"))?;
        let of_epoch = *epochs.entry(*at).or_insert(version);
        if of_epoch != version {
            return Err(format!("row {id} at {at:?}: version {version} behind rows of {of_epoch}"));
        }
    }
    let mut changes = Changes::default();
    let mut instances: BTreeMap<(u64, u64, u32), Vec<i64>> = BTreeMap::new();
    for (at, version) in &epochs {
        instances.entry((at.generation, at.attempt, at.subtask)).or_default().push(*version);
    }
    for (instance, versions) in &instances {
        // Two versions: what rises changes once at most.
        if !versions.is_sorted() {
            return Err(format!("instance {instance:?} went back: {versions:?}"));
        }
        changes.in_the_middle += u32::from(versions.first() != versions.last());
    }
    // The first deployment of this run is the one that was restored from what lay there before it.
    let first = trail.iter().map(|placed| (placed.at.generation, placed.at.attempt)).min();
    for (at, &version) in epochs.iter().filter(|(at, _)| Some((at.generation, at.attempt)) == first) {
        if at.epoch > 0 {
            continue;
        }
        if let Some(wanted) = restored {
            if version != wanted {
                return Err(format!("{at:?} computed with version {version}, restored was {wanted}"));
            }
            changes.back += u32::from(wanted < in_file);
        }
    }
    Ok(changes)
}

/// The content hash of a file.
pub fn hash(path: &Path) -> String {
    blake3::hash(&std::fs::read(path).unwrap()).to_hex().to_string()
}

/// The hash of the reference that the newest checkpoint names.
pub fn saved(storage: &dyn CheckpointStorage, job: &str, uid: &str) -> Option<String> {
    let layout = JobLayout::new(job).unwrap();
    let newest = *read_log(storage, &layout).unwrap().published().last()?;
    let manifest = Manifest::read(storage, &layout, newest).unwrap();
    let (_, operator) = manifest.operators.iter().find(|(of, _)| of.to_string() == uid)?;
    let items = operator.subtasks.values().flatten().filter_map(|part| match part {
        SnapshotPart::Union { items, .. } => Some(items),
        _ => None,
    });
    let all = items.flatten().map(|item| serde_json::from_slice::<serde_json::Value>(item).unwrap());
    let newest = all.max_by_key(|saved| saved["sequence"].as_u64())?;
    Some(newest["references"][0]["hash"].as_str()?.to_string())
}
