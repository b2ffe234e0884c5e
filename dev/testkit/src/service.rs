//! One service of `dev/`, held by this process: runs its script and reads the line that it prints.
//!
//! The script does the work (ports, pids, waiting); this knows only its commands. Two services of one name in one
//! process are two services: a counter keeps their directories apart.

use std::{
    collections::HashMap,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Error, Result, error::Doing};

static STARTED: AtomicU32 = AtomicU32::new(0);

/// A service that `dev/<script>` has started. Dropped, it is killed and its data is deleted.
#[derive(Debug)]
pub(crate) struct Service {
    script: &'static str,
    name: String,
}

impl Service {
    pub(crate) fn new(script: &'static str, name: &str) -> Self {
        let n = STARTED.fetch_add(1, Ordering::Relaxed);
        Service { script, name: format!("{name}-{n}") }
    }

    /// Starts it, or starts it again with its data and ports, and gives the `key=value` pairs that the script printed.
    pub(crate) fn start(&self, more: &[String]) -> Result<HashMap<String, String>> {
        let line = self.run("start", more)?;
        let pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
        Ok(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    /// Runs one of the script's commands for this service and gives what it printed.
    pub(crate) fn run(&self, command: &str, more: &[String]) -> Result<String> {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(self.script);
        let output = Command::new(&script)
            .arg(command)
            .arg(&self.name)
            .args(more)
            .env("THALWEG_RUN", run_dir())
            .env("THALWEG_OWNER", std::process::id().to_string())
            .output()
            .doing(|| format!("running {}", script.display()))?;
        if !output.status.success() {
            let what = format!("dev/{} {command} {}", self.script, self.name);
            return Err(Error::new(what, String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = self.run("remove", &[]) {
            eprintln!("{error}");
        }
    }
}

/// The pairs' value for `key`, which the script always prints.
pub(crate) fn pair(pairs: &HashMap<String, String>, key: &str) -> Result<String> {
    pairs
        .get(key)
        .cloned()
        .ok_or_else(|| Error::new("reading what the script printed", format!("no {key} in {pairs:?}")))
}

/// Where this process's services lie: below `THALWEG_RUN` if that is given, so that a caller can look after them.
fn run_dir() -> PathBuf {
    let above = std::env::var_os("THALWEG_RUN").map_or_else(std::env::temp_dir, PathBuf::from);
    above.join(format!("thalweg-test-{}", std::process::id()))
}
