//! Reads a job file into its specification: every key is looked at, every mistake is gathered.

use crate::config::{Checker, FilePath, Node, Place, Placed, Secret, Table, Text, Value};
use crate::run::MEMORY_BYTES_DEFAULT;
use thalweg_engine::graph::Uid;

use super::read_restart::read_restart;
use super::spec::{
    CheckpointSpec, InputSpec, JobSpec, Named, OnDamaged, SettingsSpec, StoreUrl, shown_url, store_url,
};
use super::{read_sink, read_source, read_step};

/// Least memory that a job runs in.
const MEMORY_BYTES_MIN: u64 = 80 << 20;
const PARALLELISM_MAX: i64 = 32_768;
const MAX_PARALLELISM_DEFAULT: u32 = 128;
const CHECKPOINT_INTERVAL_DEFAULT: i64 = 10_000_000;
/// More often than this a checkpoint is a mistake of units.
const CHECKPOINT_INTERVAL_MIN: i64 = 10_000;

/// Reads a job. After mistakes it answers `None`, or a specification with gaps; ask the checker.
pub fn read_job(checker: &Checker<'_>, root: &Node, file: &str) -> Option<JobSpec> {
    if root.value == Value::Nothing {
        checker.mistake_at(root, "the file is empty; a job needs `job`, `sources` and `sinks`");
        return None;
    }
    let table = checker.table(root)?;
    let settings = read_settings(&table);
    let mut unreadable = Vec::new();
    let topology = table.optional("topology").and_then(|node| read_path(checker, node));
    let sources = named(&table, "sources", "a table of sources by name", &mut unreadable, |table| {
        read_source::read_source(table, topology.as_ref())
    });
    let steps = named(&table, "steps", "", &mut unreadable, read_step::read_step);
    let sinks = named(&table, "sinks", "a table of sinks by name", &mut unreadable, read_sink::read_sink);
    table.finish();
    let names = [places(&sources), places(&steps), places(&sinks)].concat();
    check_names(checker, &names);
    let earlier = [earlier_names(&sources), earlier_names(&steps), earlier_names(&sinks)].concat();
    check_earlier_names(checker, &names, &earlier);
    Some(JobSpec { file: file.to_string(), settings, sources, steps, sinks, unreadable })
}

pub(super) fn read_path(checker: &Checker<'_>, node: &Node) -> Option<Placed<FilePath>> {
    Some(Placed { value: checker.path(node)?, place: Place::from(node) })
}

fn read_settings(table: &Table<'_>) -> SettingsSpec {
    let checker = table.checker();
    let name = table.required("job", "the job's name").and_then(|node| {
        // A label of every metric and a directory of the store: it is shown, wherever it comes from.
        let name = checker.parsed(node, "the job's name", |text| Ok(text.to_string()))?;
        check_name(checker, &Place::from(node), &name).then_some(name)
    });
    let max_parallelism = table.integer("max_parallelism", 1..=PARALLELISM_MAX);
    let max_parallelism = max_parallelism.map_or(MAX_PARALLELISM_DEFAULT, |number| number as u32);
    let parallelism = table.optional("parallelism").and_then(|node| {
        let number = checker.integer(node, 1..=PARALLELISM_MAX)? as u32;
        if number > max_parallelism {
            checker
                .mistake_at(node, format!("must not exceed `max_parallelism`, which is {max_parallelism}"));
        }
        Some(number)
    });
    let memory_place = table.optional("memory").map_or_else(|| table.place(), Place::from);
    let memory_bytes = table.optional("memory").and_then(|node| {
        let bytes = checker.bytes(node)?;
        if bytes < MEMORY_BYTES_MIN {
            checker.mistake_at(node, "a job needs at least 80MiB");
        }
        Some(bytes)
    });
    let state_dir = table.path("state_dir");
    let checkpoint = read_checkpoint(table);
    let restart = read_restart(table);
    SettingsSpec {
        name: name.unwrap_or_default(),
        parallelism: parallelism.unwrap_or(1),
        max_parallelism,
        memory_place,
        memory_bytes: memory_bytes.unwrap_or(MEMORY_BYTES_DEFAULT),
        checkpoint,
        restart,
        state_dir,
    }
}

fn read_checkpoint(table: &Table<'_>) -> CheckpointSpec {
    let checker = table.checker();
    let memory = Placed { value: store_url("memory:"), place: Place::default() };
    let mut spec = CheckpointSpec {
        interval: CHECKPOINT_INTERVAL_DEFAULT,
        store: memory,
        retain: 2,
        on_damaged: OnDamaged::Fail,
        failures_tolerated: None,
    };
    let Some(table) = table.optional("checkpoint").and_then(|node| checker.table(node)) else {
        return spec;
    };
    if let Some(node) = table.optional("interval")
        && let Some(interval) = checker.duration(node)
    {
        if interval < CHECKPOINT_INTERVAL_MIN {
            checker.mistake_at(node, "expected an interval of at least 10ms");
        }
        spec.interval = interval;
    }
    let sas = table.secret("sas");
    if let Some(node) = table.required("store", "a URL such as `file:///var/lib/thalweg`")
        && let Some(value) = checker.name(node, "a URL such as `file:///var/lib/thalweg`")
    {
        match read_store_url(checker, &value) {
            Ok(value) => {
                spec.store = Placed { value: with_sas(&table, value, sas), place: Place::from(node) }
            }
            Err(message) => checker.mistake_at(node, message),
        }
    }
    if let Some(retain) = table.integer("retain", 1..=1_000) {
        spec.retain = retain as u32;
    }
    if let Some(choice) =
        table.choice("on_damaged", &[("fail", OnDamaged::Fail), ("older", OnDamaged::Older)])
    {
        spec.on_damaged = choice;
    }
    spec.failures_tolerated = table.integer("failures_tolerated", 0..=1_000_000).map(|number| number as u32);
    table.finish();
    spec
}

/// `sas` is the URL's query, kept apart from it so that it can come from a file.
fn with_sas(table: &Table<'_>, url: StoreUrl, sas: Option<Secret>) -> StoreUrl {
    let Some(sas) = sas else {
        return url;
    };
    let bare = url.reveal().reveal();
    if !bare.starts_with("az:") || bare.contains('?') {
        table
            .checker()
            .mistake(&table.place(), "`sas` goes with an `az://` store that has no query of its own");
    }
    let whole = |url: &Secret| format!("{}?{}", url.reveal(), sas.reveal().trim_start_matches('?'));
    url.map(|url| Secret::new(whole(url)), |whole| shown_url(whole.reveal()))
}

/// `file:` URLs may be relative to the job's file: `file:checkpoints`.
fn read_store_url(checker: &Checker<'_>, text: &Text) -> Result<StoreUrl, String> {
    let url = text.as_str();
    let expected = || "expected a URL that begins with `file:` or `az://`, or `memory`".to_string();
    if let Some(path) = url.strip_prefix("file:") {
        let path = match path.strip_prefix("//") {
            Some(path) if path.starts_with('/') => path.to_string(),
            Some(_) => {
                return Err(
                    "a `file:` URL has no host; write `file:///absolute/path` or `file:relative/path`".into(),
                );
            }
            None => path.to_string(),
        };
        if path.is_empty() || path == "/" {
            return Err("expected a directory in the `file:` URL".to_string());
        }
        return Ok(store_at(text, |_| format!("file://{}", checker.beside(&path).display())));
    }
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme {
        // `memory:` needs quotes in YAML.
        "memory" if url == "memory" => Ok(store_at(text, |_| "memory:".to_string())),
        "memory" => Ok(store_at(text, str::to_string)),
        "az" if url.strip_prefix("az://").is_some_and(|rest| !rest.is_empty()) => {
            Ok(store_at(text, str::to_string))
        }
        _ => Err(expected()),
    }
}

/// The store that `whole` makes of what was written.
fn store_at(text: &Text, whole: impl FnOnce(&str) -> String) -> StoreUrl {
    text.map(|url| Secret::new(whole(url)), |url| url.reveal().to_string()).shown_as(shown_url)
}

/// Reads a table of the user's own names. `expected` is empty for a section that may be missing.
fn named<T>(
    table: &Table<'_>,
    key: &str,
    expected: &str,
    unreadable: &mut Vec<String>,
    read: impl Fn(&Table<'_>) -> Option<T>,
) -> Vec<Named<T>> {
    let checker = table.checker();
    let node = if expected.is_empty() { table.optional(key) } else { table.required(key, expected) };
    let Some(section) = node.and_then(|node| checker.table(node)) else {
        return Vec::new();
    };
    if section.entries().is_empty() && !expected.is_empty() {
        checker.mistake(&section.place(), format!("expected {expected}, found an empty table"));
    }
    let mut items = Vec::new();
    for entry in section.entries() {
        let place = Place { at: entry.key_at, path: entry.value.path.clone() };
        check_name(checker, &place, &entry.key);
        let Some(table) = checker.table(&entry.value) else {
            unreadable.push(entry.key.clone());
            continue;
        };
        let parallelism = table.integer("parallelism", 1..=PARALLELISM_MAX).map(|number| number as u32);
        let uid_was = read_earlier_names(&table);
        let spec = read(&table);
        table.finish();
        match spec {
            Some(spec) => items.push(Named { name: entry.key.clone(), place, uid_was, parallelism, spec }),
            None => unreadable.push(entry.key.clone()),
        }
    }
    items
}

/// `uid_was: name`, or a list of them.
fn read_earlier_names(table: &Table<'_>) -> Vec<Placed<Text>> {
    let checker = table.checker();
    let nodes = table.optional("uid_was").and_then(|node| checker.list(node)).unwrap_or_default();
    let named = nodes.iter().filter_map(|node| {
        let value = checker.name(node, "a name that this had in an earlier version of the job")?;
        let name = Placed { value, place: Place::from(node) };
        if let Err(error) = Uid::new(name.value.as_str()) {
            checker.mistake_in(&name, error);
        }
        Some(name)
    });
    named.collect()
}

/// Names become uids, labels of metrics and parts of paths; a dot names a side output.
fn check_name(checker: &Checker<'_>, place: &Place, name: &str) -> bool {
    const NAME_BYTES_MAX: usize = 64;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let good = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(allowed);
    if !good {
        checker.mistake(place, "a name has 1 to 64 letters, digits, `-` or `_`");
    }
    good
}

fn places<T>(items: &[Named<T>]) -> Vec<(String, Place)> {
    items.iter().map(|item| (item.name.clone(), item.place.clone())).collect()
}

fn earlier_names<T>(items: &[Named<T>]) -> Vec<Placed<Text>> {
    items.iter().flat_map(|item| item.uid_was.iter().cloned()).collect()
}

/// State under an earlier name belongs to one operator, and to nobody who has the name today.
fn check_earlier_names(checker: &Checker<'_>, names: &[(String, Place)], earlier: &[Placed<Text>]) {
    for (index, Placed { value, place }) in earlier.iter().enumerate() {
        if names.iter().any(|(name, _)| name == value.reveal()) {
            checker.mistake(place, format!("`{value}` is a name in this job: its state is that one's"));
        } else if earlier[..index].iter().any(|other| other.value == *value) {
            checker.mistake(place, format!("`{value}` is given as an earlier name twice"));
        }
    }
}

/// A name is a uid: it may stand once among sources, steps and sinks together.
fn check_names(checker: &Checker<'_>, names: &[(String, Place)]) {
    for (index, (name, place)) in names.iter().enumerate() {
        if let Some((_, earlier)) = names[..index].iter().find(|(earlier, _)| earlier == name) {
            checker.mistake(
                place,
                format!("the name `{name}` is taken by `{}` on line {}", earlier.path, earlier.at.line),
            );
        }
    }
}

/// `input: name` or `inputs: [name, name.side_output]`.
pub(super) fn read_inputs(table: &Table<'_>, many: bool) -> Option<Vec<InputSpec>> {
    let checker = table.checker();
    let node = if many {
        table.required("inputs", "a list of sources or steps")?
    } else if table.has("inputs") {
        table.has("input");
        let node = table.optional("inputs")?;
        if checker.list(node)?.len() > 1 {
            checker.mistake_at(node, "expected one input; put a step of kind `union` before this one");
            return None;
        }
        node
    } else {
        table.required("input", "the name of a source or step")?
    };
    let items = checker.list(node)?;
    if items.is_empty() {
        checker.mistake_at(node, "expected at least one input, found an empty list");
        return None;
    }
    let inputs: Vec<InputSpec> = items
        .iter()
        .filter_map(|item| {
            let text = checker.name(item, "the name of a source or step")?;
            let part = |part: &str| text.map(|_| part.to_string(), Clone::clone);
            let (from, output) = match text.as_str().split_once('.') {
                Some((from, output)) => (part(from), Some(part(output))),
                None => (text.clone(), None),
            };
            Some(InputSpec { from, output, place: Place::from(item) })
        })
        .collect();
    (inputs.len() == items.len()).then_some(inputs)
}

/// Text that is checked later, with its place.
pub(super) fn placed_text(table: &Table<'_>, key: &str, expected: &str) -> Option<Placed<Text>> {
    placed(table.checker(), table.required(key, expected)?, expected)
}

/// A name or an expression, with its place.
pub(super) fn placed(checker: &Checker<'_>, node: &Node, expected: &str) -> Option<Placed<Text>> {
    Some(Placed { value: checker.name(node, expected)?, place: Place::from(node) })
}

/// A column's name, with its place.
pub(super) fn read_column(table: &Table<'_>, key: &str) -> Option<Placed<Text>> {
    placed_text(table, key, "the name of a column")
}

/// `column` or `[column, column]`; `None` after a mistake in any.
pub(super) fn read_column_names(checker: &Checker<'_>, node: &Node) -> Option<Vec<Placed<Text>>> {
    let column =
        |node| Some(Placed { value: checker.name(node, "the name of a column")?, place: Place::from(node) });
    let columns: Vec<_> = checker.list(node)?.iter().map(column).collect();
    columns.into_iter().collect()
}
