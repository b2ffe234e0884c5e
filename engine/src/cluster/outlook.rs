//! What a run of a job would take over from its store, read without touching it.

use super::JobConfig;
use crate::Result;
use crate::checkpoint::log::read_log;
use crate::checkpoint::{CarryOver, CheckpointStorage, JobLayout, RestorePolicy, carry_over, select};
use crate::graph::Graph;

/// The table of what `graph` takes over from the newest checkpoint of the job; `None` when there is
/// none. Reads the store and claims nothing, so a job that runs is not disturbed.
///
/// # Errors
/// A user error for a name that no job can have; an external one when the store cannot be read, or
/// what it holds is damaged.
pub fn outlook(
    storage: &dyn CheckpointStorage,
    config: &JobConfig,
    graph: &Graph,
) -> Result<Option<CarryOver>> {
    let layout = JobLayout::new(&config.name)?;
    let policy = RestorePolicy { allow_older: config.use_older_when_damaged, ..RestorePolicy::default() };
    let selected = select(storage, &layout, &read_log(storage, &layout)?, &policy)?;
    Ok(selected.map(|selected| {
        carry_over(&selected.manifest.held(), &graph.states(), config.max_parallelism, &config.changes)
    }))
}
