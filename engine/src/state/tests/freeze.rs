#[cfg(feature = "rocksdb")]
use std::time::{Duration, Instant};

use super::super::frozen::FlushStep;
use super::super::*;
#[cfg(feature = "rocksdb")]
use super::site::Kind;
use super::site::{KINDS, Site, at, finish, tiny};
use crate::checkpoint::{KeyedHandle, SnapshotPart};
use crate::time::Watermark;

fn counts(site: &mut Site, handle: &KeyedHandle, keys: u64) -> Vec<Option<u64>> {
    let mut keyed = site.open(std::slice::from_ref(handle));
    let count = keyed.value::<u64>("count").unwrap();
    (0..keys)
        .map(|key| {
            at(&mut keyed, key);
            count.get(&mut keyed).unwrap().copied()
        })
        .collect()
}

#[test]
fn a_restore_has_exactly_what_was_known_at_the_barrier() {
    for &kind in KINDS {
        for spec in [KeyedStateSpec::default(), tiny()] {
            let mut site = Site::new(kind, spec);
            let mut keyed = site.open(&[]);
            let count = keyed.value::<u64>("count").unwrap();
            for key in 0..300 {
                at(&mut keyed, key);
                count.set(&mut keyed, key).unwrap();
            }
            let (task, snapshot) = site.barrier(&mut keyed);
            // The helper works while the task goes on and, with the tiny cache, has to wait.
            let helper = std::thread::spawn(move || finish(task, &snapshot));
            for key in 0..400 {
                at(&mut keyed, key);
                match key % 3 {
                    0 => count.clear(&mut keyed).unwrap(),
                    1 => count.set(&mut keyed, key + 1000).unwrap(),
                    _ => {
                        let expected = (key < 300).then_some(key);
                        assert_eq!(count.get(&mut keyed).unwrap().copied(), expected);
                        count.modify(&mut keyed, |value| *value = value.map(|value| value + 5)).unwrap();
                    }
                }
            }
            let first = helper.join().unwrap().unwrap();
            site.complete(&first);
            let second = site.checkpoint(&mut keyed);
            let at_first: Vec<_> = (0..400).map(|key| (key < 300).then_some(key)).collect();
            assert_eq!(counts(&mut site, &first, 400), at_first, "{kind:?}");
            let at_second: Vec<_> = (0..400)
                .map(|key| match key % 3 {
                    0 => None,
                    1 => Some(key + 1000),
                    _ => (key < 300).then_some(key + 5),
                })
                .collect();
            assert_eq!(counts(&mut site, &second, 400), at_second, "{kind:?}");
        }
    }
}

#[test]
fn aborted_checkpoints_lose_nothing_whenever_they_break_off() {
    for &kind in KINDS {
        let mut site = Site::new(kind, KeyedStateSpec::default());
        let mut keyed = site.open(&[]);
        let count = keyed.value::<u64>("count").unwrap();
        let list = keyed.list::<u64>("list").unwrap();
        let set = |keyed: &mut KeyedState, range: std::ops::Range<u64>, round: u64| {
            for key in range {
                at(keyed, key);
                count.set(keyed, key + round).unwrap();
                list.append(keyed, round).unwrap();
            }
        };
        // Dropped before it ran.
        set(&mut keyed, 0..10, 100);
        let (task, snapshot) = site.barrier(&mut keyed);
        drop(task);
        keyed.checkpoint_aborted(snapshot.checkpoint).unwrap();
        // Left unrun while a later one runs; it then finds itself overtaken.
        set(&mut keyed, 5..15, 200);
        let (overtaken, overtaken_site) = site.barrier(&mut keyed);
        // Broken off between the writes and the frozen files: the directory is in the way.
        set(&mut keyed, 10..20, 300);
        let (broken, mut broken_site) = site.barrier(&mut keyed);
        broken_site.scratch = broken_site.scratch.join("not").join("there");
        assert!(finish(broken, &broken_site).is_err());
        assert!(finish(overtaken, &overtaken_site).unwrap_err().to_string().contains("overtaken"));
        set(&mut keyed, 18..22, 400);
        let handle = site.checkpoint(&mut keyed);
        let mut keyed = site.open(&[handle]);
        let count = keyed.value::<u64>("count").unwrap();
        let list = keyed.list::<u64>("list").unwrap();
        let rounds = [(0..10, 100), (5..15, 200), (10..20, 300), (18..22, 400)];
        for key in 0..25u64 {
            at(&mut keyed, key);
            let rounds: Vec<u64> = rounds.iter().filter(|r| r.0.contains(&key)).map(|r| r.1).collect();
            assert_eq!(count.get(&mut keyed).unwrap().copied(), rounds.last().map(|round| key + round));
            assert_eq!(list.get(&mut keyed).unwrap(), rounds, "{kind:?} {key}");
        }
    }
}

/// The second barrier's helper is slow, and the third's is at its heels: what the first one left is
/// not written once more after what the second one wrote.
#[test]
fn what_an_aborted_barrier_froze_never_reaches_the_store_after_something_newer() {
    for &kind in KINDS {
        let mut site = Site::new(kind, KeyedStateSpec::default());
        let mut keyed = site.open(&[]);
        // Its part of a layer is written first.
        keyed.list::<u64>("list").unwrap();
        let count = keyed.value::<u64>("count").unwrap();
        at(&mut keyed, 1);
        count.set(&mut keyed, 1).unwrap();
        keyed.register_event_timer(5, b"").unwrap();
        let (aborted, first) = site.freeze(&mut keyed);
        drop(aborted);
        keyed.checkpoint_aborted(first.checkpoint).unwrap();
        at(&mut keyed, 1);
        count.set(&mut keyed, 2).unwrap();
        keyed.delete_event_timer(5, b"").unwrap();
        let (mut slow, second) = site.freeze(&mut keyed);
        let (mut quick, third) = site.freeze(&mut keyed);
        assert!(matches!(slow.step(&second), Ok(FlushStep::More)), "it has begun");
        for _ in 0..3 {
            quick.step(&third).unwrap();
        }
        while !matches!(slow.step(&second).unwrap(), FlushStep::Linked) {}
        while !matches!(quick.step(&third).unwrap(), FlushStep::Linked) {}
        let [SnapshotPart::Keyed(handle)] = &quick.upload(&third).unwrap()[..] else { panic!("no handle") };
        let mut keyed = site.open(std::slice::from_ref(handle));
        let count = keyed.value::<u64>("count").unwrap();
        at(&mut keyed, 1);
        assert_eq!(count.get(&mut keyed).unwrap(), Some(&2), "{kind:?}");
        assert_eq!(keyed.next_due_event_timer(Watermark::MAX).unwrap(), None, "{kind:?}");
    }
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_task_at_its_dirty_bound_waits_for_the_flush_and_is_right_afterwards() {
    let mut site = Site::new(Kind::Rocks, tiny());
    let mut keyed = site.open(&[]);
    let count = keyed.value::<u64>("count").unwrap();
    at(&mut keyed, 0);
    count.set(&mut keyed, 1).unwrap();
    let (task, snapshot) = site.barrier(&mut keyed);
    let waits = keyed.flush_waits();
    let helper = std::thread::spawn(move || {
        // Does nothing until the task stands still.
        let deadline = Instant::now() + Duration::from_secs(30);
        while waits.get() == 0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        (waits.get(), finish(task, &snapshot).unwrap())
    });
    for key in 1..1000 {
        at(&mut keyed, key);
        count.set(&mut keyed, key).unwrap();
    }
    let (waits, handle) = helper.join().unwrap();
    assert_eq!(waits, 1);
    assert_eq!(counts(&mut site, &handle, 3), [Some(1), None, None]);
    for key in 1..1000 {
        at(&mut keyed, key);
        assert_eq!(count.get(&mut keyed).unwrap(), Some(&key));
    }
}

#[cfg(feature = "rocksdb")]
#[test]
fn h4_a_second_snapshot_uploads_only_what_is_new() {
    let mut site = Site::new(Kind::Rocks, KeyedStateSpec::default());
    let mut keyed = site.open(&[]);
    let count = keyed.value::<u64>("count").unwrap();
    for key in 0..1000 {
        at(&mut keyed, key);
        count.set(&mut keyed, key).unwrap();
    }
    let first = site.checkpoint(&mut keyed);
    at(&mut keyed, 3);
    count.set(&mut keyed, 4).unwrap();
    let second = site.checkpoint(&mut keyed);
    let shared = |handle: &KeyedHandle| -> Vec<_> {
        handle.files.iter().filter(|file| file.name.ends_with(".sst")).map(|file| file.path.clone()).collect()
    };
    let new: Vec<_> = shared(&second).into_iter().filter(|path| !shared(&first).contains(path)).collect();
    assert!(shared(&first).iter().all(|path| shared(&second).contains(path)), "{first:?} {second:?}");
    assert_eq!(new.len(), 1);
    assert!(first.files.iter().any(|file| file.name == "CURRENT"));
}

#[test]
fn a_file_that_only_an_aborted_checkpoint_named_is_uploaded_again() {
    for &kind in KINDS {
        let mut site = Site::new(kind, KeyedStateSpec::default());
        let mut keyed = site.open(&[]);
        let count = keyed.value::<u64>("count").unwrap();
        at(&mut keyed, 1);
        count.set(&mut keyed, 5).unwrap();
        // It succeeded here, was aborted elsewhere, and its files were collected.
        let (task, snapshot) = site.barrier(&mut keyed);
        let aborted = finish(task, &snapshot).unwrap();
        keyed.checkpoint_aborted(snapshot.checkpoint).unwrap();
        for file in &aborted.files {
            site.storage.delete(&file.path).unwrap();
        }
        let handle = site.checkpoint(&mut keyed);
        assert_eq!(counts(&mut site, &handle, 2), [None, Some(5)], "{kind:?}");
    }
}

#[test]
fn what_a_barrier_froze_serves_as_a_cache_and_never_shows_an_outdated_value() {
    for &kind in KINDS {
        let spec = KeyedStateSpec { cache_bytes_max: 64 * 1024, ..KeyedStateSpec::default() };
        let mut site = Site::new(kind, spec);
        let mut keyed = site.open(&[]);
        let count = keyed.value::<u64>("count").unwrap();
        let mut model = [0u64; 97];
        for step in 0..20_000u64 {
            let key = step * step % 97;
            at(&mut keyed, key);
            let seen = count.get(&mut keyed).unwrap().copied().unwrap_or(0);
            assert_eq!(seen, model[key as usize], "{kind:?} step {step} key {key}");
            count.set(&mut keyed, step).unwrap();
            model[key as usize] = step;
            if step % 1500 == 0 {
                site.checkpoint(&mut keyed);
            }
        }
    }
}
