//! What every checkpoint store must do, as one suite: a store that passes may hold checkpoints.
//!
//! It writes below a directory of its own and leaves nothing there.

use std::path::Path;
use std::sync::{Arc, Barrier};

use bytes::Bytes;

use super::{Cancellation, CheckpointStorage, ObjectInfo, PutOutcome};
use crate::{Error, Result};

/// Larger than any store's part or block, and not a multiple of one.
const LARGE_BYTES: usize = (20 << 20) + 12_345;
/// Writers that race for one name, and the rounds they race.
const RACERS: usize = 8;
const RACES: usize = 5;
/// More objects than a first page of any listing that the suite can afford.
const LISTED: usize = 120;

/// Drives a store through the whole suite. `directory` (no trailing slash) must be empty in the
/// store and is empty afterwards; `scratch` is a local directory for files.
///
/// # Errors
/// The first requirement that the store breaks, in words; or the store's own error.
pub fn check_storage(storage: &Arc<dyn CheckpointStorage>, directory: &str, scratch: &Path) -> Result<()> {
    objects_come_back(&**storage, directory)?;
    ranges_end_where_the_object_ends(&**storage, directory)?;
    a_version_changes_with_the_content(&**storage, directory)?;
    put_if_absent_leaves_what_is_there(&**storage, directory)?;
    one_of_many_creates(storage, directory)?;
    large_files_stream(&**storage, directory, scratch)?;
    listings_are_sorted_and_bounded(&**storage, directory)?;
    odd_names_are_kept(&**storage, directory)?;
    bad_paths_are_refused(&**storage)?;
    let left = storage.list(&format!("{directory}/"))?;
    require(left.is_empty(), || format!("deleted objects are still listed: {left:?}"))
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::internal(otherwise())) }
}

fn objects_come_back(storage: &dyn CheckpointStorage, directory: &str) -> Result<()> {
    let path = format!("{directory}/a/b/object");
    require(storage.get(&path)?.is_none(), || "a missing object was read".into())?;
    require(storage.get_range(&path, 0..1)?.is_none(), || "a range of a missing object was read".into())?;
    storage.delete(&path)?;
    for content in ["first", "a second, longer one", "3", ""] {
        storage.put(&path, Bytes::from(content))?;
        let read = storage.get(&path)?;
        require(read.as_deref() == Some(content.as_bytes()), || format!("put {content:?}, got {read:?}"))?;
    }
    storage.delete(&path)?;
    require(storage.get(&path)?.is_none(), || "a deleted object was read".into())?;
    storage.delete(&path)
}

fn ranges_end_where_the_object_ends(storage: &dyn CheckpointStorage, directory: &str) -> Result<()> {
    let path = format!("{directory}/ranged");
    storage.put(&path, Bytes::from("0123456789"))?;
    for (range, expected) in [
        (0..10, "0123456789"),
        (3..5, "34"),
        (9..10, "9"),
        (8..99, "89"),
        (10..11, ""),
        (50..60, ""),
        (4..4, ""),
        (0..u64::MAX >> 1, "0123456789"),
    ] {
        let read = storage.get_range(&path, range.clone())?;
        require(read.as_deref() == Some(expected.as_bytes()), || {
            format!("range {range:?} gave {read:?} instead of {expected:?}")
        })?;
    }
    storage.put(&path, Bytes::new())?;
    let read = storage.get_range(&path, 0..4)?;
    require(read.as_ref().is_some_and(Bytes::is_empty), || {
        format!("a range of an empty object gave {read:?}")
    })?;
    storage.delete(&path)
}

fn a_version_changes_with_the_content(storage: &dyn CheckpointStorage, directory: &str) -> Result<()> {
    let (path, other) = (format!("{directory}/versioned"), format!("{directory}/beside"));
    require(storage.version(&path)?.is_none(), || "a missing object has a version".into())?;
    let mut known = Vec::new();
    // As long as each other, and one upon the other.
    for content in ["first", "other", "third"] {
        storage.put(&path, Bytes::from(content))?;
        let version = storage.version(&path)?;
        require(version.is_some(), || "an object has no version".into())?;
        require(!known.contains(&version), || format!("another content has the version {version:?} again"))?;
        storage.put(&other, Bytes::from(content))?;
        let later = storage.version(&path)?;
        require(later == version, || format!("version {version:?} became {later:?} of itself"))?;
        known.push(version);
    }
    storage.delete(&other)?;
    storage.delete(&path)?;
    require(storage.version(&path)?.is_none(), || "a deleted object has a version".into())
}

fn put_if_absent_leaves_what_is_there(storage: &dyn CheckpointStorage, directory: &str) -> Result<()> {
    let path = format!("{directory}/once");
    let outcomes = [
        storage.put_if_absent(&path, Bytes::from("first"))?,
        storage.put_if_absent(&path, Bytes::from("second"))?,
        storage.put_if_absent(&path, Bytes::from("first"))?,
    ];
    require(outcomes == [PutOutcome::Created, PutOutcome::Exists, PutOutcome::Exists], || {
        format!("three puts-if-absent of one name gave {outcomes:?}")
    })?;
    let read = storage.get(&path)?;
    require(read.as_deref() == Some(b"first"), || format!("a put-if-absent replaced the object: {read:?}"))?;
    storage.delete(&path)?;
    let again = storage.put_if_absent(&path, Bytes::from("third"))?;
    require(again == PutOutcome::Created, || "a deleted name cannot be created again".into())?;
    storage.delete(&path)
}

fn one_of_many_creates(storage: &Arc<dyn CheckpointStorage>, directory: &str) -> Result<()> {
    for race in 0..RACES {
        let path = format!("{directory}/race/{race}");
        let start = Barrier::new(RACERS);
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..RACERS)
                .map(|racer| {
                    let (start, path) = (&start, &path);
                    scope.spawn(move || {
                        start.wait();
                        storage.put_if_absent(path, Bytes::from(format!("writer {racer}")))
                    })
                })
                .collect();
            racers.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
        });
        let mut winners = Vec::new();
        for (racer, outcome) in outcomes.into_iter().enumerate() {
            let outcome = outcome.map_err(|_| Error::internal("a racer panicked"))??;
            if outcome == PutOutcome::Created {
                winners.push(format!("writer {racer}"));
            }
        }
        let read = storage.get(&path)?.unwrap_or_default();
        require(winners.len() == 1 && winners[0].as_bytes() == read, || {
            format!("of {RACERS} racing puts-if-absent {winners:?} created the object, which holds {read:?}")
        })?;
        storage.delete(&path)?;
    }
    Ok(())
}

fn large_files_stream(storage: &dyn CheckpointStorage, directory: &str, scratch: &Path) -> Result<()> {
    let path = format!("{directory}/large/file.sst");
    let (from, to) = (scratch.join("conformance-from"), scratch.join("conformance-to"));
    let io = |error: std::io::Error| Error::external("conformance scratch").caused_by(error);
    require(storage.get_file(&path, &to)?.is_none() && !to.exists(), || {
        "a missing object became a file".into()
    })?;
    for length in [0, 1, LARGE_BYTES] {
        // Every block differs from every other, so that swapped blocks do not go unseen.
        let content: Vec<u8> =
            (0..length as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
        std::fs::write(&from, &content).map_err(io)?;
        let written = storage.put_file(&path, &from, &Cancellation::default())?;
        require(written == length as u64, || format!("a file of {length} bytes was put as {written}"))?;
        let listed = storage.list(&format!("{directory}/large/"))?;
        require(listed == [ObjectInfo { path: path.clone(), bytes: length as u64 }], || {
            format!("a file of {length} bytes is listed as {listed:?}")
        })?;
        let read = storage.get_file(&path, &to)?;
        require(read == Some(length as u64), || format!("a file of {length} bytes was read as {read:?}"))?;
        require(std::fs::read(&to).map_err(io)? == content, || format!("a file of {length} bytes changed"))?;
        if length > 0 {
            let middle = length / 2..(length / 2 + 100).min(length);
            let range = storage.get_range(&path, middle.start as u64..middle.end as u64)?;
            require(range.as_deref() == Some(&content[middle.clone()]), || {
                format!("range {middle:?} is wrong")
            })?;
        }
    }
    std::fs::remove_file(&from).map_err(io)?;
    std::fs::remove_file(&to).map_err(io)?;
    storage.delete(&path)
}

fn listings_are_sorted_and_bounded(storage: &dyn CheckpointStorage, directory: &str) -> Result<()> {
    let paths: Vec<_> =
        (0..LISTED).map(|at| format!("{directory}/list/{:020}", (at * 37) % LISTED)).collect();
    // Beside the directory, and sorting around it: none of them may be listed.
    let beside = ["list-1", "list.x", "lis", "listing/1"].map(|name| format!("{directory}/{name}"));
    let nested = format!("{directory}/list/1/nested");
    for (at, path) in paths.iter().chain(&beside).chain([&nested]).enumerate() {
        storage.put(path, Bytes::from(vec![b'x'; at % 7]))?;
    }
    let listed = storage.list(&format!("{directory}/list/"))?;
    let mut expected: Vec<_> = paths
        .iter()
        .enumerate()
        .map(|(at, path)| ObjectInfo { path: path.clone(), bytes: (at % 7) as u64 })
        .chain([ObjectInfo { path: nested.clone(), bytes: ((LISTED + beside.len()) % 7) as u64 }])
        .collect();
    expected.sort_by(|a, b| a.path.cmp(&b.path));
    require(listed == expected, || format!("a listing gave {} objects, not as expected", listed.len()))?;
    require(storage.list(&format!("{directory}/nothing/"))?.is_empty(), || {
        "an empty directory has objects".into()
    })?;
    for path in paths.iter().chain(&beside).chain([&nested]) {
        storage.delete(path)?;
    }
    Ok(())
}

fn odd_names_are_kept(storage: &dyn CheckpointStorage, directory: &str) -> Result<()> {
    let names = [
        "with space",
        "percent%20sign",
        "hash#mark",
        "plus+and&equals=x",
        "ques?tion",
        "tilde~",
        "brackets[1]{2}",
        "quote'\"s",
        "colon:at@",
        "comma,semi;",
        "dots...",
        "Grüße",
        "数据",
        "UPPER and lower",
        "a/b c/d%2Fe",
        "MANIFEST-000005",
        "000012.sst",
    ];
    let mut expected = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let path = format!("{directory}/odd/{name}");
        let content = Bytes::from(format!("content {at}"));
        storage.put(&path, content.clone())?;
        let read = storage.get(&path)?;
        require(read.as_ref() == Some(&content), || format!("{path:?} gave {read:?}"))?;
        expected.push(path);
    }
    expected.sort();
    let listed: Vec<_> =
        storage.list(&format!("{directory}/odd/"))?.into_iter().map(|object| object.path).collect();
    require(listed == expected, || format!("odd names are listed as {listed:?}"))?;
    for path in expected {
        storage.delete(&path)?;
    }
    Ok(())
}

fn bad_paths_are_refused(storage: &dyn CheckpointStorage) -> Result<()> {
    for path in ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\0b"] {
        let refused = storage.put(path, Bytes::new()).is_err()
            && storage.put_if_absent(path, Bytes::new()).is_err()
            && storage.get(path).is_err()
            && storage.delete(path).is_err();
        require(refused, || format!("{path:?} was taken for a path"))?;
    }
    require(storage.list("no-slash").is_err(), || "a listing of half a name was answered".into())
}
