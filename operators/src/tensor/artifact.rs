//! Model files: weights, tokenizers, reference matrices, from a local path or an object store.
//!
//! What comes from a store, and what must outlast a change of its file, is held in a local cache by
//! content: `THALWEG_MODEL_CACHE`, or `~/.cache/thalweg/models`; at most
//! `THALWEG_MODEL_CACHE_BYTES`, or 32 GiB.

use std::path::PathBuf;

use thalweg_engine::checkpoint::{self, StoreOptions};
use thalweg_engine::{Error, Result};

use super::model_cache::{ModelCache, hash_file};

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
            match file.fetch_if_there(false)? {
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
        let cache = self.cache()?;
        let copy = cache.begin();
        std::fs::copy(self.local(), copy.path()).map_err(|error| self.unreadable(error))?;
        cache.keep(&copy)
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

    fn fetch(&self, fresh: bool) -> Result<(PathBuf, String)> {
        self.fetch_if_there(fresh)?.ok_or_else(|| self.missing())
    }

    /// `fresh`: also when an object of this name and length was fetched before, for stores tell
    /// nothing else of an object's content.
    fn fetch_if_there(&self, fresh: bool) -> Result<Option<(PathBuf, String)>> {
        let (path, _) = self.parts();
        let (parent, name) =
            path.rsplit_once('/').ok_or_else(|| Error::user(format!("{} names no object", self.shown())))?;
        let store = self.store(parent)?;
        let listed = store.list("")?;
        let Some(object) = listed.iter().find(|object| object.path == name) else { return Ok(None) };
        let cache = self.cache()?;
        if !fresh
            && let Some((hash, bytes)) = cache.entry(path)
            && bytes == object.bytes
            && let Some(path) = cache.held(&hash, bytes)
        {
            return Ok(Some((path, hash)));
        }
        let copy = cache.begin();
        if store.get_file(name, copy.path())?.is_none() {
            return Ok(None);
        }
        let (held, hash) = cache.keep(&copy)?;
        cache.note(path, &hash, object.bytes)?;
        Ok(Some((held, hash)))
    }
}
