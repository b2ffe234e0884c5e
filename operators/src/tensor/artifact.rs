//! Model files: weights, tokenizers, reference matrices, from a local path or an object store.
//!
//! What comes from a store, and what must outlast a change of its file, is held in a local cache by
//! content: `THALWEG_MODEL_CACHE`, or `~/.cache/thalweg/models`; at most
//! `THALWEG_MODEL_CACHE_BYTES`, or 32 GiB.

use std::path::PathBuf;
use std::time::Duration;

use thalweg_engine::checkpoint::{self, StoreOptions};
use thalweg_engine::{Error, Result};

use super::model_cache::{Entry, ModelCache};

/// A local file that was not written for so long has another time when it is written again.
const SETTLED: Duration = Duration::from_secs(2);

/// A file, by a local path or by the URL of an object (`az://container/path`, `file:///path`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    location: String,
    /// Where copies are held, if not where all are.
    cache: Option<PathBuf>,
}

impl Artifact {
    /// A file by its path or URL.
    pub fn new(location: impl Into<String>) -> Artifact {
        Artifact { location: location.into(), cache: None }
    }

    /// Holds copies in a cache of the caller's.
    #[must_use]
    pub fn cached_in(mut self, directory: impl Into<PathBuf>) -> Artifact {
        self.cache = Some(directory.into());
        self
    }

    fn cache(&self) -> Result<ModelCache> {
        ModelCache::open(self.cache.as_deref())
    }

    /// Where it is, without what may be secret in a URL.
    pub fn shown(&self) -> &str {
        self.location.split('?').next().unwrap_or_default()
    }

    /// A file of this directory (or prefix of a store).
    #[must_use]
    pub fn file(&self, name: &str) -> Artifact {
        let (path, query) = self.parts();
        let location = format!("{}/{name}{query}", path.trim_end_matches('/'));
        Artifact { location, cache: self.cache.clone() }
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
            let file = self.file(name);
            match file.fetch_if_there()? {
                Some((path, hash)) => held.push((name, path, hash)),
                None if is_required => return Err(file.missing()),
                None => {}
            }
        }
        self.cache()?.directory(&held)
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
        if self.is_remote() { Ok(self.fetch()?.0) } else { Ok(self.local()) }
    }

    /// A local path that keeps this content also when the file changes, and its BLAKE3.
    pub(super) fn kept(&self) -> Result<(PathBuf, String)> {
        let newest = self.newest()?;
        if newest.is_remote() {
            return newest.fetch();
        }
        // Copied first and hashed then: the file may change meanwhile.
        let cache = self.cache()?;
        let copy = cache.begin();
        std::fs::copy(newest.local(), copy.path()).map_err(|error| newest.unreadable(error))?;
        cache.keep(&copy)
    }

    /// What changes when the file does, without reading it: what a store knows the object by, or name,
    /// length and time of a local file. `None` where that cannot be told yet: a file that was written
    /// just now may be written again within the same tick of its clock.
    pub(super) fn version(&self) -> Result<Option<String>> {
        let newest = self.newest()?;
        if newest.is_remote() {
            let (store, name) = newest.object()?;
            let version = store.version(name)?.ok_or_else(|| newest.missing())?;
            return Ok(Some(format!("{name} {version}")));
        }
        let found = std::fs::metadata(newest.local()).map_err(|error| newest.unreadable(error))?;
        let written = found.modified().map_err(|error| newest.unreadable(error))?;
        let settled = written.elapsed().is_ok_and(|age| age >= SETTLED);
        Ok(settled.then(|| format!("{} {} {written:?}", newest.location, found.len())))
    }

    /// A file of this content, if the cache has it whole.
    pub(super) fn cached(&self, hash: &str) -> Option<PathBuf> {
        self.cache().ok()?.intact(hash)
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
            let files = entries.flatten().filter(|entry| entry.path().is_file());
            files.filter_map(|entry| entry.file_name().into_string().ok()).collect()
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

    fn missing(&self) -> Error {
        Error::external(format!("there is no object {}", self.shown()))
    }

    /// The store that holds the object, and its name there.
    fn object(&self) -> Result<(std::sync::Arc<dyn checkpoint::CheckpointStorage>, &str)> {
        let (path, _) = self.parts();
        let (parent, name) =
            path.rsplit_once('/').ok_or_else(|| Error::user(format!("{} names no object", self.shown())))?;
        Ok((self.store(parent)?, name))
    }

    fn fetch(&self) -> Result<(PathBuf, String)> {
        self.fetch_if_there()?.ok_or_else(|| self.missing())
    }

    /// Fetched only where the cache does not hold what the store has now.
    fn fetch_if_there(&self) -> Result<Option<(PathBuf, String)>> {
        let (path, _) = self.parts();
        let (store, name) = self.object()?;
        // Before the content: should that be newer, the next look finds another version.
        let Some(version) = store.version(name)? else { return Ok(None) };
        let cache = self.cache()?;
        if let Some(known) = cache.entry(path)
            && known.version == version
            && let Some(path) = cache.held(&known.hash, known.bytes)
        {
            return Ok(Some((path, known.hash)));
        }
        let copy = cache.begin();
        let Some(bytes) = store.get_file(name, copy.path())? else { return Ok(None) };
        let (held, hash) = cache.keep(&copy)?;
        cache.note(path, &Entry { hash: hash.clone(), bytes, version })?;
        Ok(Some((held, hash)))
    }
}
