//! What a run of a job file would take over from its last checkpoint, before anything runs.

use std::path::Path;

use thalweg_engine::checkpoint::CarryOver;
use thalweg_engine::{Error, Result};

use super::LoadedJob;
use super::start::settings;

/// The table of what the job takes over from `store`, a directory or a URL, or from its own; `None`
/// when that holds no checkpoint of it. Claims nothing and makes nothing.
///
/// # Errors
/// A user error for a store that is none; an external one when it cannot be read.
pub fn outlook(job: &LoadedJob, store: Option<&str>) -> Result<Option<CarryOver>> {
    let url = match store {
        Some(store) => store_url(store),
        None => job.spec.settings.checkpoint.store.value.reveal().reveal().to_string(),
    };
    // Opening a directory makes it.
    if let Some(directory) = url.strip_prefix("file://")
        && !Path::new(directory).is_dir()
    {
        return Err(Error::user(format!("{directory} is no directory, and so no store")));
    }
    settings(&job.spec.settings, job.changes.clone()).checkpoints(&url).outlook_of(&job.graph)
}

/// A path is that of a directory; a `file:` URL may be relative to where the program runs.
fn store_url(store: &str) -> String {
    let path = match store.strip_prefix("file:") {
        Some(path) => path.strip_prefix("//").unwrap_or(path),
        None if store.split_once(':').is_none_or(|(scheme, _)| scheme.contains('/')) => store,
        None => return store.to_string(),
    };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    format!("file://{}", path.display())
}
