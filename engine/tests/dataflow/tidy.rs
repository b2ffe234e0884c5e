//! What a store may hold when a job is over.

use std::collections::BTreeSet;

use thalweg_engine::checkpoint::log::read_log;
use thalweg_engine::checkpoint::{CheckpointStorage, JobLayout, Manifest};

/// Fails with the names of objects that neither the log nor a checkpoint that it names has, and of
/// those that a checkpoint names and that are not there.
pub fn holds_only_what_is_named(storage: &dyn CheckpointStorage, job: &str) -> Result<(), String> {
    let layout = JobLayout::new(job).unwrap();
    let view = read_log(storage, &layout).map_err(|error| error.to_string())?;
    let mut named = BTreeSet::new();
    for &checkpoint in view.published() {
        let manifest = Manifest::read(storage, &layout, checkpoint).map_err(|error| error.to_string())?;
        named.extend(manifest.names(&layout));
    }
    let listed = storage.list(&format!("{job}/")).map_err(|error| error.to_string())?;
    let held: BTreeSet<_> = listed
        .into_iter()
        .map(|object| object.path)
        .filter(|path| layout.log_sequence(path).is_none())
        .collect();
    let (leaked, lost) = (held.difference(&named).collect::<Vec<_>>(), named.difference(&held));
    let lost = lost.collect::<Vec<_>>();
    if leaked.is_empty() && lost.is_empty() {
        return Ok(());
    }
    Err(format!("published {:?}; leaked {leaked:?}; lost {lost:?}", view.published()))
}
