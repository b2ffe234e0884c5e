//! Peers that are not in this workspace: programs that `dev/peers` prepares in the cache folder, run
//! as the baseline of a benchmark. Each takes its case as arguments and prints one number.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use thalweg_engine::{Error, Result};

/// Where `dev/peers` puts them: `THALWEG_PEERS`, or `~/.cache/thalweg/peers`.
fn directory() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    std::env::var_os("THALWEG_PEERS").map_or_else(|| home().join(".cache/thalweg/peers"), PathBuf::from)
}

/// The directory of all-MiniLM-L6-v2: `config.json`, `tokenizer.json`, `model.safetensors`.
pub fn minilm() -> PathBuf {
    directory().join("minilm")
}

/// What a Python peer of `benches/peers` prints.
///
/// # Errors
/// An external error when it is not there, fails, or prints no number.
pub fn python(script: &str, arguments: &[String]) -> Result<f64> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
    let mut command = Command::new(directory().join("venv/bin/python"));
    command.arg(script).args(arguments);
    number(command)
}

/// What a program of the peers' folder prints.
///
/// # Errors
/// An external error when it is not there, fails, or prints no number.
pub fn program(name: &str, arguments: &[String]) -> Result<f64> {
    let mut command = Command::new(directory().join(name));
    command.args(arguments);
    number(command)
}

fn number(mut command: Command) -> Result<f64> {
    let what = format!("{command:?}");
    let failed =
        |reason: &str| Error::external(format!("peer {what} {reason} (dev/peers prepares the peers)"));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| failed("cannot be run").caused_by(error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().and_then(|line| line.trim().parse().ok());
    last.filter(|_| output.status.success()).ok_or_else(|| failed("gave no number"))
}
