//! What is embedded: descriptions of this repository's own dependencies.

use std::path::{Path, PathBuf};
use std::process::Command;

use thalweg::prelude::*;

/// A package of the lock file.
pub struct Described {
    /// Name and version.
    pub id: String,
    /// The first of its categories.
    pub category: String,
    /// What it says of itself, if it does.
    pub text: Option<String>,
}

impl Described {
    /// As it is produced to Kafka. Packages come a second apart: all within the day that
    /// near-duplicates are looked for in.
    pub fn payload(&self, second: usize) -> String {
        let at = format!("2025-03-01T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60);
        let Described { id, category, text } = self;
        serde_json::json!({ "id": id, "category": category, "text": text, "at": at }).to_string()
    }
}

/// What cargo knows of the packages that `Cargo.lock` names: the same on every machine.
///
/// # Errors
/// When cargo does not run, or cannot read the packages.
pub fn packages() -> Result<Vec<Described>> {
    let manifest: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path"])
        .arg(&manifest)
        .output()
        .map_err(|error| Error::external("cargo does not run").caused_by(error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::external(format!("cargo metadata failed: {}", said.trim())));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::external("cargo metadata says nothing that can be read").caused_by(error))?;
    let package = |package: &serde_json::Value| {
        let category = package["categories"][0].as_str().unwrap_or("none");
        Some(Described {
            id: format!("{} {}", package["name"].as_str()?, package["version"].as_str()?),
            category: category.split("::").next().unwrap_or(category).to_string(),
            text: package["description"].as_str().map(|text| text.trim().replace('\n', " ")),
        })
    };
    Ok(metadata["packages"].as_array().into_iter().flatten().filter_map(package).collect())
}
