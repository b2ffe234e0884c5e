//! Compiled kernels on disk, so that a second start does not compile.
//!
//! A file is named by a hash of all that makes its content: source, architecture, options and the
//! compiler's version. It begins with a hash of what follows, so that a damaged one is seen,
//! removed and made again. The cache is a convenience: where it cannot be read or written, kernels
//! are compiled and nothing fails.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a kernel is compiled from, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recipe<'a> {
    /// CUDA C++.
    pub(super) source: &'a str,
    /// `sm_90`.
    pub(super) arch: &'a str,
    /// The compiler's options but for the architecture.
    pub(super) options: &'a [String],
    /// `12.9`.
    pub(super) compiler: &'a str,
}

impl Recipe<'_> {
    /// Names the file.
    pub(super) fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let options = self.options.iter().map(String::as_str);
        for part in [self.source, self.arch, self.compiler].into_iter().chain(options) {
            // The length stands first: no two recipes have the same bytes.
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        hasher.finalize()
    }
}

/// A directory of compiled kernels; or none, where the user has no cache directory.
#[derive(Clone, Debug)]
pub(super) struct KernelCache {
    directory: Option<PathBuf>,
}

const HASH_BYTES: usize = 32;

impl KernelCache {
    /// `$XDG_CACHE_HOME/thalweg/kernels`, or `~/.cache/thalweg/kernels`.
    pub(super) fn of_the_user() -> KernelCache {
        KernelCache { directory: user_directory(|name| std::env::var_os(name).map(PathBuf::from)) }
    }

    /// In this directory.
    #[cfg(test)]
    pub(super) fn in_directory(directory: impl Into<PathBuf>) -> KernelCache {
        KernelCache { directory: Some(directory.into()) }
    }

    /// The kernel of that hash, if it is there and whole; a damaged file is removed.
    pub(super) fn load(&self, hash: blake3::Hash) -> Option<Vec<u8>> {
        let path = self.path(hash)?;
        let mut bytes = fs::read(&path).ok()?;
        let whole = bytes
            .split_at_checked(HASH_BYTES)
            .is_some_and(|(head, body)| !body.is_empty() && blake3::hash(body).as_bytes() == head);
        if !whole {
            // Where it cannot be removed it is found damaged again, and compiled again.
            let _ = fs::remove_file(&path);
            return None;
        }
        bytes.drain(..HASH_BYTES);
        Some(bytes)
    }

    /// Keeps a kernel. Written beside and renamed, so that another process never reads half.
    pub(super) fn store(&self, hash: blake3::Hash, kernel: &[u8]) -> std::io::Result<()> {
        static WRITES: AtomicU64 = AtomicU64::new(0);
        let (Some(path), Some(directory)) = (self.path(hash), self.directory.as_deref()) else {
            return Ok(());
        };
        fs::create_dir_all(directory)?;
        let number = WRITES.fetch_add(1, Ordering::Relaxed);
        let unfinished = directory.join(format!("{}.{}.{number}.tmp", hash.to_hex(), std::process::id()));
        let written = write(&unfinished, kernel).and_then(|()| fs::rename(&unfinished, &path));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn path(&self, hash: blake3::Hash) -> Option<PathBuf> {
        Some(self.directory.as_ref()?.join(format!("{}.cubin", hash.to_hex())))
    }
}

fn write(path: &Path, kernel: &[u8]) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(blake3::hash(kernel).as_bytes())?;
    file.write_all(kernel)
}

fn user_directory(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The XDG base directory specification: a path that is not absolute is to be ignored.
    let cache = variable("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| variable("HOME").filter(|path| path.is_absolute()).map(|home| home.join(".cache")))?;
    Some(cache.join("thalweg").join("kernels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe<'a>(source: &'a str, options: &'a [String]) -> Recipe<'a> {
        Recipe { source, arch: "sm_90", options, compiler: "12.9" }
    }

    #[test]
    fn a_kernel_comes_back_as_it_was_kept_and_no_temporary_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let cache = KernelCache::in_directory(directory.path().join("not/there/yet"));
        let hash = recipe("void f() {}", &[]).hash();
        assert_eq!(cache.load(hash), None);
        cache.store(hash, b"machine code").unwrap();
        assert_eq!(cache.load(hash).unwrap(), b"machine code");
        let files: Vec<_> = fs::read_dir(directory.path().join("not/there/yet")).unwrap().collect();
        assert_eq!(files.len(), 1);
    }

    #[test]
    fn a_damaged_file_is_removed_whatever_the_damage() {
        let directory = tempfile::tempdir().unwrap();
        let cache = KernelCache::in_directory(directory.path());
        let hash = recipe("void f() {}", &[]).hash();
        let path = cache.path(hash).unwrap();
        cache.store(hash, b"machine code").unwrap();
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[HASH_BYTES + 3] ^= 1;
        for damaged in [&whole[..whole.len() - 1], &whole[..HASH_BYTES], &whole[..5], b"", &flipped[..]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(cache.load(hash), None);
            assert!(!path.exists());
        }
        cache.store(hash, b"machine code").unwrap();
        assert!(cache.load(hash).is_some());
    }

    #[test]
    fn each_part_of_the_recipe_makes_another_name() {
        let plain = recipe("a", &[]);
        let options = ["b".to_owned()];
        let others = [
            Recipe { source: "b", ..plain },
            Recipe { arch: "sm_80", ..plain },
            Recipe { compiler: "12.8", ..plain },
            Recipe { options: &options, ..plain },
        ];
        for other in others {
            assert_ne!(plain.hash(), other.hash(), "{other:?}");
        }
    }

    #[test]
    fn the_directory_follows_the_xdg_specification() {
        let set = |xdg: &'static str, home: &'static str| {
            user_directory(move |name| match name {
                "XDG_CACHE_HOME" if !xdg.is_empty() => Some(xdg.into()),
                "HOME" if !home.is_empty() => Some(home.into()),
                _ => None,
            })
        };
        assert_eq!(set("/x", "/h"), Some("/x/thalweg/kernels".into()));
        assert_eq!(set("relative", "/h"), Some("/h/.cache/thalweg/kernels".into()));
        assert_eq!(set("", ""), None);
        let nowhere = KernelCache { directory: None };
        nowhere.store(recipe("a", &[]).hash(), b"k").unwrap();
        assert_eq!(nowhere.load(recipe("a", &[]).hash()), None);
    }
}
