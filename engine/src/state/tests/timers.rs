use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::*;
use super::site::{KINDS, Kind, Site, at, finish, key_bytes, tiny};
use crate::time::Watermark;

fn fire(keyed: &mut KeyedState, watermark: i64) -> Vec<(i64, Vec<u8>, Vec<u8>)> {
    let mut fired = Vec::new();
    while let Some(timer) = keyed.next_due_event_timer(Watermark(watermark)).unwrap() {
        assert_eq!(keyed.current_key(), timer.key);
        fired.push((timer.time, timer.key, timer.namespace));
    }
    fired
}

#[test]
fn timers_fire_once_in_time_order_and_only_when_due() {
    for &kind in KINDS {
        let mut site = Site::new(kind, KeyedStateSpec::default());
        let mut keyed = site.open(&[]);
        for (key, time) in [(1, 30), (2, 10), (3, 20), (1, 10), (2, 10)] {
            at(&mut keyed, key);
            keyed.register_event_timer(time, b"w").unwrap();
        }
        at(&mut keyed, 3);
        keyed.register_event_timer(20, b"other").unwrap();
        keyed.register_event_timer(25, b"gone").unwrap();
        keyed.delete_event_timer(25, b"gone").unwrap();
        keyed.delete_event_timer(26, b"never").unwrap();
        assert_eq!(fire(&mut keyed, 9), []);
        let times: Vec<_> = fire(&mut keyed, 20).into_iter().map(|timer| timer.0).collect();
        assert_eq!(times, [10, 10, 20, 20], "{kind:?}");
        assert_eq!(fire(&mut keyed, 29), []);
        assert_eq!(fire(&mut keyed, 30), [(30, key_bytes(1), b"w".to_vec())]);
    }
}

#[test]
fn the_two_clocks_do_not_see_each_other() {
    let mut site = Site::new(Kind::Map, KeyedStateSpec::default());
    let mut keyed = site.open(&[]);
    at(&mut keyed, 1);
    keyed.register_processing_timer(50, b"").unwrap();
    keyed.register_processing_timer(40, b"").unwrap();
    keyed.register_event_timer(1, b"").unwrap();
    assert_eq!(keyed.earliest_processing_timer().unwrap(), Some(40));
    assert_eq!(keyed.next_due_processing_timer(39).unwrap(), None);
    assert_eq!(keyed.next_due_processing_timer(45).unwrap().unwrap().time, 40);
    keyed.delete_processing_timer(50, b"").unwrap();
    assert_eq!(keyed.earliest_processing_timer().unwrap(), None);
    assert_eq!(fire(&mut keyed, 100).len(), 1);
}

#[test]
fn timers_survive_a_restore_also_those_set_and_fired_while_the_snapshot_was_written() {
    for &kind in KINDS {
        for spec in [KeyedStateSpec::default(), tiny()] {
            let mut site = Site::new(kind, spec);
            let mut keyed = site.open(&[]);
            for key in 0..200 {
                at(&mut keyed, key);
                keyed.register_event_timer(key as i64, b"").unwrap();
            }
            let (task, snapshot) = site.barrier(&mut keyed);
            let helper = std::thread::spawn(move || finish(task, &snapshot).unwrap());
            assert_eq!(fire(&mut keyed, 49).len(), 50);
            at(&mut keyed, 7);
            keyed.register_event_timer(60, b"late").unwrap();
            at(&mut keyed, 100);
            keyed.delete_event_timer(100, b"").unwrap();
            let first = helper.join().unwrap();
            let second = site.checkpoint(&mut keyed);
            let mut keyed = site.open(&[first]);
            let times = |keyed: &mut KeyedState| -> Vec<_> {
                fire(keyed, i64::MAX).into_iter().map(|timer| timer.0).collect()
            };
            assert_eq!(times(&mut keyed), (0..200).collect::<Vec<_>>(), "{kind:?}");
            let mut keyed = site.open(&[second]);
            let mut expected: Vec<i64> = (50..200).filter(|time| *time != 100).chain([60]).collect();
            expected.sort_unstable();
            assert_eq!(times(&mut keyed), expected, "{kind:?}");
        }
    }
}

#[test]
fn very_many_timers_fire_in_bounded_memory() {
    for &kind in KINDS {
        let spec = KeyedStateSpec { cache_bytes_max: 1 << 20, timer_bytes_max: 256 * 1024 };
        let mut site = Site::new(kind, spec);
        let mut keyed = site.open(&[]);
        let total = 60_000u64;
        for key in 0..total {
            at(&mut keyed, key);
            keyed.register_event_timer((key % 3) as i64, b"").unwrap();
        }
        let (mut fired, mut last) = (0, i64::MIN);
        while let Some(timer) = keyed.next_due_event_timer(Watermark(5)).unwrap() {
            assert!(timer.time >= last);
            last = timer.time;
            fired += 1;
            assert!(keyed.timers.bytes() < 1 << 20);
            assert!(keyed.event_timers.head_bytes() <= 256 * 1024 + 200);
        }
        assert_eq!(fired, total, "{kind:?}");
    }
}

#[derive(Clone, Debug)]
enum Op {
    Register(u64, i64),
    Delete(u64, i64),
    Advance(i64),
    Checkpoint,
    Restore,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (0u64..8, 0i64..12).prop_map(|(key, time)| Op::Register(key, time)),
        5 => (0u64..8, 0i64..12).prop_map(|(key, time)| Op::Delete(key, time)),
        1 => (0i64..3).prop_map(Op::Advance),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::Restore),
    ];
    proptest::collection::vec(op, 1..250)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn timers_behave_as_an_ordered_set_does(ops in ops(), head in 100usize..3000) {
        let mut site = Site::new(Kind::Map, KeyedStateSpec { cache_bytes_max: 2048, timer_bytes_max: head });
        let mut keyed = site.open(&[]);
        let mut model: BTreeSet<(i64, Vec<u8>)> = BTreeSet::new();
        let mut watermark = 0;
        let mut restored = (site.checkpoint(&mut keyed), model.clone());
        for op in ops {
            match op {
                Op::Register(key, time) => {
                    at(&mut keyed, key);
                    keyed.register_event_timer(time, b"x").unwrap();
                    model.insert((time, key_bytes(key)));
                }
                Op::Delete(key, time) => {
                    at(&mut keyed, key);
                    keyed.delete_event_timer(time, b"x").unwrap();
                    model.remove(&(time, key_bytes(key)));
                }
                Op::Advance(by) => {
                    watermark += by;
                    let fired: Vec<_> = fire(&mut keyed, watermark).into_iter().map(|t| (t.0, t.1)).collect();
                    prop_assert!(fired.is_sorted_by_key(|timer| timer.0));
                    let due: BTreeSet<_> = model.iter().filter(|t| t.0 <= watermark).cloned().collect();
                    prop_assert_eq!(fired.len(), due.len());
                    prop_assert_eq!(fired.into_iter().collect::<BTreeSet<_>>(), due);
                    model.retain(|timer| timer.0 > watermark);
                }
                Op::Checkpoint => restored = (site.checkpoint(&mut keyed), model.clone()),
                Op::Restore => {
                    keyed = site.open(std::slice::from_ref(&restored.0));
                    model = restored.1.clone();
                }
            }
        }
        let rest: BTreeSet<_> = fire(&mut keyed, i64::MAX).into_iter().map(|t| (t.0, t.1)).collect();
        prop_assert_eq!(rest, model);
    }
}
