//! A local directory for what a snapshot writes before it is uploaded.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the directories of this process.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A directory's name, unique on this machine; made by whoever writes there, removed on drop.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        Scratch(std::env::temp_dir().join(format!("thalweg-harness-{}-{number}", std::process::id())))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been made, and what is left over costs nothing but space.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
