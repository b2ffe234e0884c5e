use super::super::*;
use super::site::{KINDS, Site, at, tiny};

#[test]
fn a_value_is_set_read_changed_and_cleared() {
    for &kind in KINDS {
        let mut site = Site::new(kind, KeyedStateSpec::default());
        let mut keyed = site.open(&[]);
        let count = keyed.value::<u64>("count").unwrap();
        at(&mut keyed, 1);
        assert_eq!(count.get(&mut keyed).unwrap(), None);
        count.set(&mut keyed, 5).unwrap();
        assert_eq!(count.get(&mut keyed).unwrap(), Some(&5));
        at(&mut keyed, 2);
        assert_eq!(count.get(&mut keyed).unwrap(), None);
        let seen = count.modify(&mut keyed, |value| *value.insert(9)).unwrap();
        assert_eq!((seen, count.get(&mut keyed).unwrap()), (9, Some(&9)));
        at(&mut keyed, 1);
        count.clear(&mut keyed).unwrap();
        assert_eq!(count.get(&mut keyed).unwrap(), None);
    }
}

#[test]
fn a_list_keeps_its_order_over_evictions_and_rewrites() {
    for &kind in KINDS {
        let mut site = Site::new(kind, tiny());
        let mut keyed = site.open(&[]);
        let list = keyed.list::<String>("rows").unwrap();
        for round in 0..40u64 {
            for key in 0..20 {
                at(&mut keyed, key);
                list.append(&mut keyed, format!("{key}-{round}")).unwrap();
                if round % 20 == 19 {
                    // Read now and then: lists in many segments are rewritten as one.
                    assert_eq!(list.get(&mut keyed).unwrap().len() as u64, round + 1);
                }
            }
        }
        for key in 0..20 {
            at(&mut keyed, key);
            let expected: Vec<_> = (0..40).map(|round| format!("{key}-{round}")).collect();
            assert_eq!(list.get(&mut keyed).unwrap(), expected, "{kind:?}");
            assert!(!list.is_empty(&mut keyed).unwrap());
            list.clear(&mut keyed).unwrap();
            assert!(list.is_empty(&mut keyed).unwrap());
            list.append(&mut keyed, "again".into()).unwrap();
        }
        for key in 0..20 {
            at(&mut keyed, key);
            assert_eq!(list.get(&mut keyed).unwrap(), ["again"]);
        }
    }
}

#[test]
fn iterating_a_map_sees_cached_writes_and_deletes_over_what_is_stored() {
    for &kind in KINDS {
        let mut site = Site::new(kind, KeyedStateSpec::default());
        let mut keyed = site.open(&[]);
        let map = keyed.map::<i64, String>("rows").unwrap();
        at(&mut keyed, 1);
        for key in [5, -3, 9, 7] {
            map.put(&mut keyed, key, format!("old {key}")).unwrap();
        }
        let handle = site.checkpoint(&mut keyed);
        let mut keyed = site.open(&[handle]);
        let map = keyed.map::<i64, String>("rows").unwrap();
        at(&mut keyed, 1);
        map.remove(&mut keyed, &9).unwrap();
        map.put(&mut keyed, 6, "new 6".into()).unwrap();
        map.put(&mut keyed, 5, "new 5".into()).unwrap();
        let entries: Vec<_> = map.iter(&mut keyed).unwrap().collect();
        let expected = [(-3, "old -3"), (5, "new 5"), (6, "new 6"), (7, "old 7")];
        assert_eq!(entries, expected.map(|(key, value)| (key, value.to_string())));
        assert_eq!(map.get(&mut keyed, &9).unwrap(), None);
        let (task, snapshot) = site.barrier(&mut keyed);
        map.remove(&mut keyed, &-3).unwrap();
        map.put(&mut keyed, 8, "newer 8".into()).unwrap();
        let keys = |keyed: &mut KeyedState| map.iter(keyed).unwrap().map(|entry| entry.0).collect::<Vec<_>>();
        assert_eq!(keys(&mut keyed), [5, 6, 7, 8]);
        task(&snapshot).unwrap();
        assert_eq!(keys(&mut keyed), [5, 6, 7, 8]);
        map.clear(&mut keyed).unwrap();
        assert!(map.is_empty(&mut keyed).unwrap());
        at(&mut keyed, 2);
        assert!(map.is_empty(&mut keyed).unwrap());
    }
}

#[test]
fn a_map_larger_than_the_cache_is_iterated_in_order() {
    for &kind in KINDS {
        let mut site = Site::new(kind, tiny());
        let mut keyed = site.open(&[]);
        let map = keyed.map::<u32, u64>("big").unwrap();
        at(&mut keyed, 1);
        for key in 0..3000u32 {
            map.put(&mut keyed, key.wrapping_mul(2_654_435_761), u64::from(key)).unwrap();
        }
        let (mut last, mut count) = (None, 0);
        map.for_each(&mut keyed, |key, _| {
            assert!(last.is_none_or(|last| last < *key));
            last = Some(*key);
            count += 1;
            Ok(true)
        })
        .unwrap();
        assert_eq!(count, 3000, "{kind:?}");
    }
}

#[test]
fn a_state_cannot_change_its_kind_or_type() {
    for &kind in KINDS {
        let mut site = Site::new(kind, KeyedStateSpec::default());
        let mut keyed = site.open(&[]);
        let count = keyed.value::<u64>("count").unwrap();
        at(&mut keyed, 1);
        count.set(&mut keyed, 300).unwrap();
        assert!(keyed.value::<String>("count").unwrap_err().to_string().contains("two types"));
        let handle = site.checkpoint(&mut keyed);
        let mut keyed = site.open(std::slice::from_ref(&handle));
        let error = keyed.map::<u8, u64>("count").unwrap_err().to_string();
        assert!(error.contains("\"count\" was a value state and is now asked for as a map state"), "{error}");
        let mut keyed = site.open(&[handle]);
        let count = keyed.value::<String>("count").unwrap();
        at(&mut keyed, 1);
        assert!(count.get(&mut keyed).unwrap_err().to_string().contains("String"));
    }
}

#[test]
fn using_state_without_a_key_or_with_a_foreign_one_is_an_error() {
    let mut site = Site::new(KINDS[0], KeyedStateSpec::default());
    let mut keyed = site.try_open(0, 2, &[]).unwrap();
    let count = keyed.value::<u64>("count").unwrap();
    assert!(count.get(&mut keyed).is_err());
    let foreign = (0..).find(|&key| {
        at(&mut keyed, key);
        count.get(&mut keyed).is_err()
    });
    assert!(foreign.is_some());
    assert!(keyed.register_event_timer(1, &[]).is_err());
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_backend_with_a_budget_says_what_an_instance_may_keep() {
    let directory = tempfile::tempdir().unwrap();
    let config = RocksConfig { instance_bytes: Some(1 << 20), ..RocksConfig::new(directory.path()) };
    let spec = KeyedStateSpec::of_backend(&RocksBackend::new(config).unwrap());
    assert!(spec.cache_bytes_max + 2 * spec.timer_bytes_max <= 1 << 20, "{spec:?}");
    assert!(spec.cache_bytes_max > 700 << 10, "{spec:?}");
    let spec = KeyedStateSpec::of_backend(&MapBackend::new(directory.path()));
    assert_eq!(spec.cache_bytes_max, KeyedStateSpec::default().cache_bytes_max);
}
