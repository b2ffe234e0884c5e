use super::super::key_encoding::hash_key;
use super::super::*;
use super::site::{KINDS, MAX_PARALLELISM, Site, at, key_bytes, owned_keys, tiny};
use crate::checkpoint::KeyedHandle;
use crate::time::Watermark;

const KEYS: u64 = 400;

fn fill(keyed: &mut KeyedState) {
    let count = keyed.value::<u64>("count").unwrap();
    let map = keyed.map::<String, u64>("map").unwrap();
    let list = keyed.list::<u64>("list").unwrap();
    for key in owned_keys(keyed, KEYS) {
        at(keyed, key);
        count.set(keyed, key * 3).unwrap();
        map.put(keyed, format!("a{key}"), key).unwrap();
        map.put(keyed, "b".into(), key + 1).unwrap();
        list.append(keyed, key).unwrap();
        keyed.register_event_timer((key % 7) as i64, b"ns").unwrap();
    }
}

/// Everything of an instance's own keys is there, and nothing of others.
fn check(keyed: &mut KeyedState) -> u64 {
    let count = keyed.value::<u64>("count").unwrap();
    let map = keyed.map::<String, u64>("map").unwrap();
    let list = keyed.list::<u64>("list").unwrap();
    let keys = owned_keys(keyed, KEYS);
    for &key in &keys {
        at(keyed, key);
        assert_eq!(count.get(keyed).unwrap(), Some(&(key * 3)));
        let entries: Vec<_> = map.iter(keyed).unwrap().collect();
        assert_eq!(entries, [(format!("a{key}"), key), ("b".into(), key + 1)]);
        assert_eq!(list.get(keyed).unwrap(), [key]);
    }
    let mut fired = Vec::new();
    while let Some(timer) = keyed.next_due_event_timer(Watermark::MAX).unwrap() {
        assert_eq!(timer.key, keyed.current_key());
        fired.push((timer.time, timer.key));
    }
    assert!(fired.is_sorted_by_key(|timer| timer.0));
    let mut expected: Vec<_> = keys.iter().map(|&key| ((key % 7) as i64, key_bytes(key))).collect();
    expected.sort();
    fired.sort();
    assert_eq!(fired, expected);
    let range = &[0u8][..]..&[0xff; 4][..];
    for family in [Family::State, Family::Timers] {
        keyed
            .core
            .store
            .scan(family, range.clone(), &mut |key, _| {
                let group = KeyGroup(u16::from_be_bytes([key[0], key[1]]));
                assert!(keyed.core.owned.contains(group), "{group:?} is not owned");
                Ok(true)
            })
            .unwrap();
    }
    keys.len() as u64
}

fn rescaled(site: &mut Site, handles: &[KeyedHandle], parallelism: u32) -> Vec<KeyedHandle> {
    let mut seen = 0;
    let mut next = Vec::new();
    for subtask in 0..parallelism {
        let mut keyed = site.try_open(subtask, parallelism, handles).unwrap();
        next.push(site.checkpoint(&mut keyed));
        seen += check(&mut keyed);
    }
    assert_eq!(seen, KEYS);
    next
}

#[test]
fn restores_two_to_three_to_one_to_two() {
    for &kind in KINDS {
        let mut site = Site::new(kind, tiny());
        let mut handles = Vec::new();
        for subtask in 0..2 {
            let mut keyed = site.try_open(subtask, 2, &[]).unwrap();
            fill(&mut keyed);
            handles.push(site.checkpoint(&mut keyed));
        }
        let handles = rescaled(&mut site, &handles, 3);
        let handles = rescaled(&mut site, &handles, 1);
        let handles = rescaled(&mut site, &handles, 2);
        rescaled(&mut site, &handles, 2);
    }
}

#[test]
fn lists_go_on_in_order_behind_what_another_parallelism_wrote() {
    for &kind in KINDS {
        let mut site = Site::new(kind, KeyedStateSpec::default());
        let mut handles = Vec::new();
        for subtask in 0..2 {
            let mut keyed = site.try_open(subtask, 2, &[]).unwrap();
            // The instances are at different epochs.
            for _ in 0..=subtask * 3 {
                fill(&mut keyed);
                site.checkpoint(&mut keyed);
            }
            handles.push(site.checkpoint(&mut keyed));
        }
        let mut keyed = site.open(&handles);
        let list = keyed.list::<u64>("list").unwrap();
        for key in 0..KEYS {
            at(&mut keyed, key);
            list.append(&mut keyed, 7777).unwrap();
        }
        let handle = site.checkpoint(&mut keyed);
        let mut keyed = site.open(&[handle]);
        let list = keyed.list::<u64>("list").unwrap();
        for key in 0..KEYS {
            at(&mut keyed, key);
            let group = KeyGroup::of_hash(hash_key(&key_bytes(key)), MAX_PARALLELISM);
            let before = if group.subtask(2, MAX_PARALLELISM) == 0 { 1 } else { 4 };
            let mut expected = vec![key; before];
            expected.push(7777);
            assert_eq!(list.get(&mut keyed).unwrap(), expected, "{kind:?}");
        }
    }
}
