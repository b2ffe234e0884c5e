//! Model files: weights, tokenizers, reference matrices, from a local path or an object store.
//!
//! What comes from a store is fetched once into a local cache, by content: `blobs/<hash>`, beside
//! an index of which object was which content. The cache is `THALWEG_MODEL_CACHE`, or
//! `~/.cache/thalweg/models`.

use std::path::{Path, PathBuf};

use thalweg_engine::checkpoint::{self, StoreOptions};
use thalweg_engine::{Error, Result};

/// A file, by a local path or by the URL of an object (`az://container/path`, `file:///path`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    location: String,
}

impl Artifact {
    /// A file by its path or URL.
    pub fn new(location: impl Into<String>) -> Artifact {
        Artifact { location: location.into() }
    }

    /// Where it is, without what may be secret in a URL.
    pub fn shown(&self) -> &str {
        self.location.split('?').next().unwrap_or_default()
    }

    /// A file of this directory (or prefix of a store).
    #[must_use]
    pub fn file(&self, name: &str) -> Artifact {
        let (path, query) = self.parts();
        Artifact { location: format!("{}/{name}{query}", path.trim_end_matches('/')) }
    }

    /// A local directory with these files of this directory (or prefix of a store): names, and whether
    /// each must be there. What is in a store is fetched into the cache.
    ///
    /// # Errors
    /// An external error that names the file that is missing.
    pub fn directory(&self, files: impl IntoIterator<Item = (&'static str, bool)>) -> Result<PathBuf> {
        if !self.is_remote() {
            return Ok(self.local());
        }
        let mut held: Vec<(&str, PathBuf, String)> = Vec::new();
        for (name, is_required) in files {
            match self.file(name).fetch(false) {
                Ok((path, hash)) => held.push((name, path, hash)),
                Err(error) if is_required => return Err(error),
                Err(_) => {}
            }
        }
        // Named after what is in it, so two models never share one.
        let mut hasher = blake3::Hasher::new();
        for (name, _, hash) in &held {
            hasher.update(name.as_bytes()).update(hash.as_bytes());
        }
        let directory = cache()?.join("directories").join(hasher.finalize().to_hex().as_str());
        let failed = |error: std::io::Error| Error::external("cannot write the model cache").caused_by(error);
        for (name, blob, _) in held {
            let link = directory.join(name);
            if let Some(parent) = link.parent() {
                std::fs::create_dir_all(parent).map_err(failed)?;
            }
            if !link.exists() {
                std::fs::hard_link(&blob, &link)
                    .or_else(|_| std::fs::copy(&blob, &link).map(drop))
                    .map_err(failed)?;
            }
        }
        Ok(directory)
    }

    fn is_remote(&self) -> bool {
        self.location.starts_with("memory:")
            || (self.location.contains("://") && !self.location.starts_with("file:"))
    }

    fn local(&self) -> PathBuf {
        PathBuf::from(self.location.strip_prefix("file://").unwrap_or(&self.location))
    }

    /// A local path of the file; what is in a store is fetched if the cache does not have it.
    ///
    /// # Errors
    /// An external error that names the file.
    pub fn path(&self) -> Result<PathBuf> {
        if self.is_remote() { Ok(self.fetch(false)?.0) } else { Ok(self.local()) }
    }

    /// A local path that keeps this content also when the file changes, and its BLAKE3.
    pub(super) fn kept(&self) -> Result<(PathBuf, String)> {
        let newest = self.newest()?;
        if newest != *self {
            return newest.kept();
        }
        if self.is_remote() {
            return self.fetch(true);
        }
        // Copied first and hashed then: the file may change meanwhile.
        let cache = cache()?;
        let copy = temporary(&cache);
        std::fs::copy(self.local(), &copy).map_err(|error| self.unreadable(error))?;
        keep(&cache, &copy)
    }

    /// The BLAKE3 of the file as it is now.
    pub(super) fn hash(&self) -> Result<String> {
        let newest = self.newest()?;
        if newest != *self {
            // One name, one version: what is known of it stays true.
            return if newest.is_remote() { Ok(newest.fetch(false)?.1) } else { newest.hash() };
        }
        if self.is_remote() {
            return Ok(self.fetch(true)?.1);
        }
        hash_file(&self.local()).map_err(|error| self.unreadable(error))
    }

    /// A file of this content, if the cache has it.
    pub(super) fn cached(hash: &str) -> Option<PathBuf> {
        let path = cache().ok()?.join("blobs").join(hash);
        path.is_file().then_some(path)
    }

    /// Of a directory or prefix (it ends with `/`) the file whose name is the last; a file is itself.
    fn newest(&self) -> Result<Artifact> {
        let (path, _) = self.parts();
        if !path.ends_with('/') {
            return Ok(self.clone());
        }
        let names: Vec<String> = if self.is_remote() {
            self.store(path)?.list("")?.into_iter().map(|object| object.path).collect()
        } else {
            let entries = std::fs::read_dir(self.local()).map_err(|error| self.unreadable(error))?;
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
        };
        let newest = names.iter().filter(|name| !name.contains('/')).max();
        let newest =
            newest.ok_or_else(|| Error::external(format!("there is no file in {}", self.shown())))?;
        Ok(self.file(newest))
    }

    /// Path and query.
    fn parts(&self) -> (&str, &str) {
        match self.location.find('?') {
            Some(at) if self.is_remote() => self.location.split_at(at),
            _ => (&self.location, ""),
        }
    }

    fn store(&self, directory: &str) -> Result<std::sync::Arc<dyn checkpoint::CheckpointStorage>> {
        let (_, query) = self.parts();
        checkpoint::open(
            &format!("{}{query}", directory.trim_end_matches('/')),
            &StoreOptions::from_environment(),
        )
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        Error::external(format!("cannot read {}", self.shown())).caused_by(error)
    }

    /// `fresh`: also when an object of this name and length was fetched before, for stores tell
    /// nothing else of an object's content.
    fn fetch(&self, fresh: bool) -> Result<(PathBuf, String)> {
        let (path, _) = self.parts();
        let (parent, name) =
            path.rsplit_once('/').ok_or_else(|| Error::user(format!("{} names no object", self.shown())))?;
        let store = self.store(parent)?;
        let missing = || Error::external(format!("there is no object {}", self.shown()));
        let listed = store.list("")?;
        let object = listed.iter().find(|object| object.path == name).ok_or_else(missing)?;
        let cache = cache()?;
        let entry = cache.join("index").join(blake3::hash(path.as_bytes()).to_hex().as_str());
        if !fresh
            && let Ok(line) = std::fs::read_to_string(&entry)
            && let Some((hash, bytes)) = line.trim().split_once(' ')
            && bytes == object.bytes.to_string()
            && let Some(path) = Artifact::cached(hash)
        {
            return Ok((path, hash.to_string()));
        }
        let copy = temporary(&cache);
        store.get_file(name, &copy)?.ok_or_else(missing)?;
        let (path, hash) = keep(&cache, &copy)?;
        let written = std::fs::write(&entry, format!("{hash} {}", object.bytes));
        written.map_err(|error| Error::external("cannot write the model cache").caused_by(error))?;
        Ok((path, hash))
    }
}

/// The cache's directory; exists.
fn cache() -> Result<PathBuf> {
    let given = std::env::var_os("THALWEG_MODEL_CACHE").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/thalweg/models"));
    let cache = given.or_else(home).unwrap_or_else(|| std::env::temp_dir().join("thalweg-models"));
    for directory in ["blobs", "index"] {
        std::fs::create_dir_all(cache.join(directory))
            .map_err(|error| Error::external(format!("cannot make {}", cache.display())).caused_by(error))?;
    }
    Ok(cache)
}

/// A name in the cache that no other has.
fn temporary(cache: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static MADE: AtomicU64 = AtomicU64::new(0);
    cache.join(format!("fetching-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed)))
}

/// Puts a file under its content's name.
fn keep(cache: &Path, copy: &Path) -> Result<(PathBuf, String)> {
    let failed = |error: std::io::Error| Error::external("cannot write the model cache").caused_by(error);
    let hash = hash_file(copy).map_err(failed)?;
    let path = cache.join("blobs").join(&hash);
    std::fs::rename(copy, &path).map_err(failed)?;
    Ok((path, hash))
}

fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().to_hex().to_string())
}
