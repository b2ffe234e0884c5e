//! The manifest's format, pinned; damage; and what each instance is given at a restore.

use proptest::prelude::*;

use super::*;
use crate::checkpoint::{
    AllowedChanges, CheckpointStorage, JobState, KeyedHandle, MemoryStorage, carry_over,
};
use crate::source::SplitId;
use crate::state::{KeyGroup, KeyGroupRange};

const FIXTURE_1: &[u8] = include_bytes!("../fixtures/manifest-1");
const FIXTURE_2: &[u8] = include_bytes!("../fixtures/manifest-2");
const ID: CheckpointId = CheckpointId { generation: 3, number: 41 };

fn uid(name: &str) -> Uid {
    Uid::new(name).unwrap()
}

fn layout() -> JobLayout {
    JobLayout::new("flights").unwrap()
}

fn file(name: &str, path: String) -> FileHandle {
    FileHandle { name: name.into(), path, bytes: 4, hash: blake3::hash(name.as_bytes()).to_hex().to_string() }
}

/// One of everything.
fn sample() -> Manifest {
    let (source, windows, sink) = (uid("source"), uid("windows"), uid("sink"));
    let mut manifest = Manifest::new("flights", ID, u64::MAX - 1, 128);
    manifest.add_operator(&source, 2, Some(StateIdentity::of("numbers")));
    manifest.add_enumerator(&source, b"enumerator".to_vec());
    let split =
        |name: &str, position: &[u8]| SplitState { id: SplitId(name.into()), position: position.to_vec() };
    manifest.add_parts(&source, 0, vec![SnapshotPart::Splits(vec![split("east/flights/1", &[1, 0, 255])])]);
    manifest.add_finished(&source, 1);
    let identity = StateIdentity::of("tumbling window").with("size", "1h");
    manifest.add_operator(&windows, 2, Some(identity));
    let shared = layout().shared(CheckpointId { number: 40, ..ID }, "ab12");
    let private = layout().private(ID, &windows, 0, "CURRENT").unwrap();
    manifest.add_parts(
        &windows,
        0,
        vec![SnapshotPart::Keyed(KeyedHandle {
            backend: "rocksdb".into(),
            key_groups: KeyGroupRange { first: 0, end: 64 },
            files: vec![file("000012.sst", shared), file("CURRENT", private)],
            meta: vec![0, 1, 2],
        })],
    );
    manifest.add_operator(&sink, 1, None);
    manifest.add_parts(
        &sink,
        0,
        vec![
            SnapshotPart::List { name: "open".into(), items: vec![b"a".to_vec(), vec![]] },
            SnapshotPart::Union { name: "all".into(), items: vec![b"u".to_vec()] },
            SnapshotPart::Committable(Committable {
                uid: sink.clone(),
                payload: b"\x01segment".to_vec(),
                objects: vec![layout().private(ID, &sink, 0, "segment-1").unwrap()],
            }),
        ],
    );
    manifest
}

#[test]
fn a_manifest_is_written_as_version_2_did() {
    let written = sample().encode().unwrap();
    assert_eq!(written, FIXTURE_2, "\n{}\n", String::from_utf8_lossy(&written));
}

#[test]
fn h5_manifests_of_earlier_versions_are_read() {
    assert_eq!(Manifest::decode("fixture", FIXTURE_2).unwrap(), sample());
    let mut without_identities = sample();
    without_identities.operators.values_mut().for_each(|operator| operator.identity = None);
    assert_eq!(Manifest::decode("fixture", FIXTURE_1).unwrap(), without_identities);
}

#[test]
fn h7_a_manifest_says_what_there_is_to_lose_and_is_taken_over_under_the_jobs_uids() {
    let held = sample().held();
    let said: Vec<_> = held.states.iter().map(|state| (state.uid.as_str(), state.what.as_deref())).collect();
    let expected = [
        ("sink", Some("the state of 1 instances")),
        ("source", Some("the positions of a source")),
        ("windows", Some("the state of 1 instances")),
    ];
    assert_eq!(said, expected);
    let state = |name: &str, before: &str| JobState {
        uid: uid(name),
        identity: held.states[2].identity.clone().unwrap(),
        uids_before: vec![uid(before)],
        uid_by_place: None,
    };
    let job = [state("hourly", "windows"), state("out", "sink")];
    let allowed = AllowedChanges { dropped: ["source".to_string()].into(), ..AllowedChanges::default() };
    let table = carry_over(&held, &job, 128, &allowed);
    table.check().unwrap();
    let taken = sample().taken_over(&table);
    assert_eq!(taken.operators.keys().map(Uid::as_str).collect::<Vec<_>>(), ["hourly", "out"]);
    assert_eq!(taken.operators[&uid("hourly")], sample().operators[&uid("windows")]);
    assert_eq!(taken.committables[0].uid, uid("out"));
    assert_eq!(taken.committables[0].objects, sample().committables[0].objects);
}

#[test]
fn a_manifest_comes_back_from_the_store_and_one_that_is_missing_is_named() {
    let storage = MemoryStorage::new();
    sample().write(&storage, &layout()).unwrap();
    assert_eq!(Manifest::read(&storage, &layout(), ID).unwrap(), sample());
    let other = CheckpointId { number: 42, ..ID };
    let error = Manifest::read(&storage, &layout(), other).unwrap_err();
    assert!(error.to_string().contains("flights/checkpoints/3-42/manifest is missing"), "{error}");
    assert!(!error.is_retryable());
    storage.put(&layout().manifest(other), sample().encode().unwrap()).unwrap();
    let error = Manifest::read(&storage, &layout(), other).unwrap_err();
    assert!(error.to_string().contains("it is that of 3-41"), "{error}");
}

#[test]
fn every_damaged_byte_and_every_cut_is_found() {
    let whole = sample().encode().unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.to_vec();
        flipped[at] ^= 0x20;
        for damaged in [&flipped[..], &whole[..at]] {
            let error = Manifest::decode("the/path", damaged).expect_err("damage went unseen");
            assert!(error.to_string().contains("the/path") && !error.is_retryable(), "{error}");
        }
    }
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let newer = String::from_utf8(sample().encode().unwrap().to_vec()).unwrap();
    let newer = newer.replacen("thalweg-manifest 2 ", "thalweg-manifest 3 ", 1);
    let error = Manifest::decode("the/path", newer.as_bytes()).unwrap_err();
    assert!(error.to_string().contains("the/path has format 3; this version reads up to 2"), "{error}");
}

#[test]
fn names_are_the_files_the_staged_objects_and_the_manifest() {
    let names: Vec<_> = sample().names(&layout()).into_iter().collect();
    assert_eq!(
        names,
        [
            "flights/checkpoints/3-41/manifest",
            "flights/checkpoints/3-41/operators/sink/0/segment-1",
            "flights/checkpoints/3-41/operators/windows/0/CURRENT",
            "flights/shared/3-40-ab12.sst",
        ]
    );
    let shared = sample().shared_files(&layout());
    assert_eq!(shared.values().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["000012.sst"]);
}

#[test]
fn splits_and_committables_are_kept_apart_from_what_an_instance_restores() {
    let manifest = sample();
    assert!(manifest.restored_for(&uid("source"), 0, 2, 128).unwrap().is_empty());
    assert_eq!(manifest.splits(&uid("source")).len(), 1);
    assert_eq!(manifest.enumerator(&uid("source")), Some(&b"enumerator"[..]));
    assert!(!manifest.operators[&uid("source")].is_finished());
    assert_eq!(manifest.committables.len(), 1);
    let sink = manifest.restored_for(&uid("sink"), 0, 1, 128).unwrap();
    assert_eq!(sink.items("open").count(), 2);
    assert_eq!(sink.items("all").collect::<Vec<_>>(), [b"u"]);
    assert!(manifest.restored_for(&uid("unknown"), 0, 1, 128).unwrap().is_empty());
}

#[test]
fn another_number_of_key_groups_is_the_users_mistake() {
    let error = sample().restored_for(&uid("windows"), 0, 2, 256).unwrap_err();
    assert_eq!(error.blame(), crate::Blame::User);
    assert!(error.to_string().contains("256") && error.to_string().contains("128"), "{error}");
}

/// A manifest of one operator at a parallelism, with `items[subtask]` in a list and a union.
fn dealt_from(parallelism: u32, max_parallelism: u32, items: &[Vec<Vec<u8>>]) -> Manifest {
    let mut manifest = Manifest::new("job", ID, 0, max_parallelism);
    manifest.add_operator(&uid("op"), parallelism, None);
    for subtask in 0..parallelism {
        let key_groups = KeyGroupRange::of_subtask(subtask, parallelism, max_parallelism);
        let own = items[subtask as usize].clone();
        let keyed =
            KeyedHandle { backend: "map".into(), key_groups, files: vec![], meta: vec![subtask as u8] };
        let parts = vec![
            SnapshotPart::Keyed(keyed),
            SnapshotPart::List { name: "list".into(), items: own.clone() },
            SnapshotPart::Union { name: "union".into(), items: own },
        ];
        manifest.add_parts(&uid("op"), subtask, parts);
    }
    manifest
}

fn check_deal(before: u32, after: u32, max_parallelism: u32, items: &[Vec<Vec<u8>>]) {
    let manifest = dealt_from(before, max_parallelism, items);
    let restored: Vec<_> = (0..after)
        .map(|subtask| manifest.restored_for(&uid("op"), subtask, after, max_parallelism).unwrap())
        .collect();
    // Every key group is restored once, by its new owner, from its old owner's handle.
    for group in 0..max_parallelism {
        let group = KeyGroup(group as u16);
        let owner = group.subtask(after, max_parallelism) as usize;
        let holders = restored[owner].keyed().filter(|handle| handle.key_groups.contains(group));
        assert_eq!(
            holders.map(|handle| handle.meta[0]).collect::<Vec<_>>(),
            [group.subtask(before, max_parallelism) as u8]
        );
    }
    for (subtask, state) in restored.iter().enumerate() {
        let own = KeyGroupRange::of_subtask(subtask as u32, after, max_parallelism);
        assert!(state.keyed().all(|handle| handle.key_groups.intersection(&own).is_some()));
    }
    // Every list item exactly once, in order; every union item everywhere.
    let all: Vec<&[u8]> = items.iter().flatten().map(Vec::as_slice).collect();
    let dealt: Vec<&[u8]> = restored.iter().flat_map(|state| state.items("list")).collect();
    assert_eq!(dealt, all);
    assert!(restored.iter().all(|state| state.items("union").collect::<Vec<_>>() == all));
    if before == after {
        for (state, own) in restored.iter().zip(items) {
            assert_eq!(
                state.items("list").collect::<Vec<_>>(),
                own.iter().map(Vec::as_slice).collect::<Vec<_>>()
            );
        }
    } else {
        let shares = restored.iter().map(|state| state.items("list").count());
        assert!(shares.clone().max().unwrap() - shares.min().unwrap() <= 1, "the deal is uneven");
    }
}

#[test]
fn two_become_three_and_three_become_one() {
    let items = [vec![b"a".to_vec(), b"b".to_vec(), b"c".to_vec()], vec![b"d".to_vec()], vec![]];
    check_deal(2, 3, 128, &items[..2]);
    check_deal(3, 1, 128, &items);
}

proptest! {
    #[test]
    fn any_parallelism_deals_everything_out_exactly_once(
        max_parallelism in 1..200u32,
        before in 1..12u32,
        after in 1..12u32,
        items in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..6), 12),
    ) {
        let (before, after) = (before.min(max_parallelism), after.min(max_parallelism));
        check_deal(before, after, max_parallelism, &items[..before as usize]);
    }

    /// What parses bytes from outside never panics.
    #[test]
    fn any_bytes_are_an_error_or_a_manifest(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Manifest::decode("x", &bytes);
        let _ = crate::checkpoint::log::LogEntry::decode("x", &bytes);
    }
}
