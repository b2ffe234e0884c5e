//! From a file's path to a job that can be run, or to all its mistakes.

use std::path::Path;

use thalweg_engine::checkpoint::AllowedChanges;
use thalweg_engine::graph::Graph;
use thalweg_engine::state::MemoryPlan;

use crate::config::{Checker, Environment, Masks, Mistake, Mistakes, Place, Position, parse};

use super::build::build;
use super::memory::divide;
use super::read::read_job;
use super::spec::{JobSpec, SettingsSpec};
use super::wiring::step_order;

/// A job file without mistakes, and the graph that it stands for.
pub struct LoadedJob {
    /// What the file says.
    pub spec: JobSpec,
    /// The graph; its uids are the file's names.
    pub graph: Graph,
    /// How its memory is divided.
    pub memory: MemoryPlan,
    /// Which changes since its last checkpoint may cost state; none, unless the caller says so.
    pub changes: AllowedChanges,
    /// Hide what came out of the environment or a file in what is said of the job.
    pub masks: Masks,
}

/// Loads a job file.
///
/// # Errors
/// All mistakes in it, with their lines and keys; or that the file cannot be read.
pub fn load(path: &Path, environment: &dyn Environment) -> Result<LoadedJob, Mistakes> {
    load_with(path, environment, None, Masks::default())
}

/// Loads a job file, to be run with another parallelism than it says: its memory is divided for
/// that one. `masks` learn at once what may not be shown.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    path: &Path,
    environment: &dyn Environment,
    parallelism: Option<u32>,
    masks: Masks,
) -> Result<LoadedJob, Mistakes> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot read the job file: {error}");
        let at = Position { line: 1, column: 1 };
        Mistakes::new(&file, vec![Mistake { at, path: String::new(), message }])
    })?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    load_tree(&text, &file, &directory, environment, parallelism, masks)
}

/// Loads a job from text; `file` names it in messages, relative paths begin at `directory`, which
/// is absolute.
///
/// # Errors
/// All mistakes in it, with their lines and keys.
pub fn load_text(
    text: &str,
    file: &str,
    directory: &Path,
    environment: &dyn Environment,
) -> Result<LoadedJob, Mistakes> {
    load_tree(text, file, directory, environment, None, Masks::default())
}

fn load_tree(
    text: &str,
    file: &str,
    directory: &Path,
    environment: &dyn Environment,
    parallelism: Option<u32>,
    masks: Masks,
) -> Result<LoadedJob, Mistakes> {
    let root = parse(text).map_err(|mistakes| Mistakes::new(file, mistakes))?;
    let checker = Checker::new(environment, directory, text, masks.clone());
    let mut loaded = None;
    if let Some(mut spec) = read_job(&checker, &root, file) {
        if let Some(parallelism) = parallelism {
            override_parallelism(&checker, &mut spec.settings, parallelism);
        }
        let order = step_order(&checker, &spec);
        loaded = build_twice(&checker, spec, &order, masks);
    }
    let count = checker.count();
    checker.finish(file)?;
    loaded.ok_or_else(|| {
        let message = format!("the job could not be built, and nobody said why ({count} mistakes)");
        let at = Position { line: 1, column: 1 };
        Mistakes::new(file, vec![Mistake { at, path: String::new(), message }])
    })
}

fn override_parallelism(checker: &Checker<'_>, settings: &mut SettingsSpec, parallelism: u32) {
    let limit = settings.max_parallelism;
    if parallelism > limit {
        let message = format!("--parallelism {parallelism} exceeds `max_parallelism`, which is {limit}");
        let at = Position { line: 1, column: 1 };
        checker.mistake(&Place { at, path: String::new() }, message);
    }
    settings.parallelism = parallelism;
}

/// Builds the graph to see what memory it needs, then again with what each part may hold.
fn build_twice(checker: &Checker<'_>, spec: JobSpec, order: &[usize], masks: Masks) -> Option<LoadedJob> {
    let graph = build(checker, &spec, order, None)?;
    match divide(&spec, &graph) {
        Ok(memory) => {
            let graph = build(checker, &spec, order, Some(&memory))?;
            Some(LoadedJob { spec, graph, memory, changes: AllowedChanges::default(), masks })
        }
        Err(error) => {
            let text = error.to_string();
            checker.mistake(&spec.settings.memory_place, text.lines().next().unwrap_or_default());
            None
        }
    }
}
