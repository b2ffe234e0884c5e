//! The enumerator, by requirement. Facts are made by hand; nothing here knows a broker.

use super::*;
use crate::kafka::bounds::Start;
use crate::kafka::fact::PartitionFact;
use proptest::prelude::*;
use thalweg_engine::checkpoint::CheckpointId;

const TOPIC: &str = "flights";

fn partition(number: i32, low: i64, high: i64) -> PartitionFact {
    PartitionFact { topic: TOPIC.into(), partition: number, low, high, at_timestamp: None }
}

fn up(cluster: &str, partitions: i32) -> HoldingFact {
    HoldingFact {
        cluster: cluster.into(),
        topic: TOPIC.into(),
        reachable: Some(true),
        topic_id: Some(TopicId([1; 16])),
        brokers: 1,
        complete: true,
        partitions: (0..partitions).map(|number| partition(number, 0, 100)).collect(),
    }
}

fn down(cluster: &str) -> HoldingFact {
    HoldingFact { reachable: Some(false), complete: false, partitions: vec![], ..up(cluster, 0) }
}

fn away(holding: HoldingFact) -> HoldingFact {
    HoldingFact { reachable: Some(false), ..holding }
}

fn facts(holdings: Vec<HoldingFact>) -> EnumeratorEvent {
    let facts = Facts { version: ENCODING_VERSION, topology: 1, holdings };
    EnumeratorEvent::Discovered(encode(&facts).unwrap())
}

fn started(parallelism: u32, splits: Vec<SplitState>) -> EnumeratorEvent {
    EnumeratorEvent::Started { parallelism, splits }
}

fn unbounded() -> FederatedEnumerator {
    FederatedEnumerator::new(Bounds::default(), None).unwrap()
}

fn until_latest() -> Bounds {
    Bounds { until: Some(Until::Latest), ..Bounds::default() }
}

fn bounded() -> FederatedEnumerator {
    FederatedEnumerator::new(until_latest(), None).unwrap()
}

/// What an enumerator gave: split -> (reader, position).
fn assigned(actions: &[EnumeratorAction]) -> BTreeMap<String, (u32, Position)> {
    let mut all = BTreeMap::new();
    for action in actions {
        if let EnumeratorAction::Assign { subtask, splits } = action {
            for split in splits {
                let position = Position::decode(&split.position).unwrap();
                assert!(all.insert(split.id.to_string(), (*subtask, position)).is_none(), "given twice");
            }
        }
    }
    all
}

fn status_to(actions: &[EnumeratorAction], reader: u32) -> Option<Status> {
    actions.iter().find_map(|action| match action {
        EnumeratorAction::ToReader { subtask, message } if *subtask == reader => {
            Some(decode(message, "status").unwrap())
        }
        _ => None,
    })
}

fn no_more(actions: &[EnumeratorAction]) -> bool {
    actions.contains(&EnumeratorAction::NoMoreSplits)
}

/// A split that was given once, as its reader holds it.
fn at(id: &str, next: i64, end: Option<i64>) -> SplitState {
    let position = Position { next, end, assignment: 1, topic_id: Some(TopicId([1; 16])) };
    split_state(&SplitId(id.into()), position)
}

fn held(id: &str, position: Position) -> SplitState {
    split_state(&SplitId(id.into()), position)
}

/// Where a split goes on and where it ends.
fn span(position: &Position) -> (i64, Option<i64>) {
    (position.next, position.end)
}

#[test]
fn f1_the_same_topic_in_two_clusters_is_twice_the_splits_dealt_out_evenly() {
    let mut enumerator = unbounded();
    assert!(enumerator.handle(started(2, vec![])).unwrap().is_empty());
    let given = assigned(&enumerator.handle(facts(vec![up("a", 4), up("b", 4)])).unwrap());
    assert_eq!(given.len(), 8);
    for cluster in ["a", "b"] {
        for reader in 0..2 {
            let count = given.iter().filter(|(id, (to, _))| id.starts_with(cluster) && *to == reader).count();
            assert_eq!(count, 2, "{cluster} at reader {reader}");
        }
    }
    assert!(assigned(&enumerator.handle(facts(vec![up("a", 4), up("b", 4)])).unwrap()).is_empty());
}

#[test]
fn f2_a_cluster_that_is_down_at_start_holds_nobody_and_follows_when_it_comes() {
    let mut enumerator = unbounded();
    enumerator.handle(started(1, vec![])).unwrap();
    let actions = enumerator.handle(facts(vec![up("a", 2), down("b")])).unwrap();
    assert_eq!(assigned(&actions).len(), 2);
    let status = status_to(&actions, 0).unwrap();
    assert_eq!((status.away, status.undiscovered), (vec!["b".to_string()], vec!["b".to_string()]));
    let actions = enumerator.handle(facts(vec![up("a", 2), up("b", 2)])).unwrap();
    assert_eq!(assigned(&actions).into_keys().collect::<Vec<_>>(), ["b/flights/0", "b/flights/1"]);
    // The splits come before the word that everything is known: no watermark may overtake them.
    let position = |wanted: fn(&EnumeratorAction) -> bool| actions.iter().position(wanted).unwrap();
    assert!(
        position(|action| matches!(action, EnumeratorAction::Assign { .. }))
            < position(|action| matches!(action, EnumeratorAction::ToReader { .. }))
    );
    assert!(status_to(&actions, 0).unwrap().undiscovered.is_empty());
}

#[test]
fn f8_a_cluster_that_nobody_looked_at_yet_is_told_apart() {
    let mut enumerator = unbounded();
    enumerator.handle(started(1, vec![])).unwrap();
    let unseen = HoldingFact { reachable: None, ..down("b") };
    let status = status_to(&enumerator.handle(facts(vec![up("a", 1), unseen])).unwrap(), 0).unwrap();
    assert_eq!((status.unlooked, status.away), (vec!["b".to_string()], vec![]));
    let status = status_to(&enumerator.handle(facts(vec![up("a", 1), down("b")])).unwrap(), 0).unwrap();
    assert_eq!((status.unlooked, status.undiscovered), (vec![], vec!["b".to_string()]));
}

#[test]
fn f3_w2_an_outage_takes_no_split_away() {
    let mut enumerator = unbounded();
    enumerator.handle(started(1, vec![])).unwrap();
    enumerator.handle(facts(vec![up("a", 1), up("b", 1)])).unwrap();
    let actions = enumerator.handle(facts(vec![up("a", 1), away(up("b", 1))])).unwrap();
    assert!(!actions.iter().any(|action| matches!(action, EnumeratorAction::Release { .. })));
    assert_eq!(status_to(&actions, 0).unwrap().away, ["b"]);
    let actions = enumerator.handle(facts(vec![up("a", 1), up("b", 1)])).unwrap();
    assert!(status_to(&actions, 0).unwrap().away.is_empty());
    assert!(assigned(&actions).is_empty());
}

#[test]
fn f4_a_restore_with_a_cluster_down_gives_its_splits_out_again_at_their_offsets() {
    let mut enumerator = unbounded();
    enumerator.handle(started(2, vec![])).unwrap();
    enumerator.handle(facts(vec![up("a", 1), up("b", 1)])).unwrap();
    let snapshot = enumerator.snapshot();
    let mut restored = FederatedEnumerator::new(Bounds::default(), Some(&snapshot)).unwrap();
    let held = vec![at("a/flights/0", 40, None), at("b/flights/0", 17, None)];
    let actions = restored.handle(started(3, held)).unwrap();
    assert!(assigned(&actions).is_empty(), "what is restored waits for a look");
    let unseen = HoldingFact { reachable: None, ..down("b") };
    let actions = restored.handle(facts(vec![up("a", 1), unseen])).unwrap();
    assert_eq!(assigned(&actions)["a/flights/0"].1.next, 40);
    assert_eq!(status_to(&actions, 0).unwrap().unlooked, ["b"]);
    let given = assigned(&restored.handle(facts(vec![up("a", 1), down("b")])).unwrap());
    assert_eq!(given["b/flights/0"].1.next, 17, "looked at, and not reached");
}

#[test]
fn f5_clusters_and_partitions_come_and_go() {
    let mut enumerator = unbounded();
    enumerator.handle(started(1, vec![])).unwrap();
    enumerator.handle(facts(vec![up("a", 1)])).unwrap();
    let actions = enumerator.handle(facts(vec![up("a", 2), up("c", 1)])).unwrap();
    assert_eq!(assigned(&actions).into_keys().collect::<Vec<_>>(), ["a/flights/1", "c/flights/0"]);
    let actions = enumerator.handle(facts(vec![up("c", 1)])).unwrap();
    let released: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            EnumeratorAction::Release { splits, .. } => Some(splits.clone()),
            _ => None,
        })
        .flatten()
        .map(|id| id.to_string())
        .collect();
    assert_eq!(released, ["a/flights/0", "a/flights/1"]);
    assert_eq!(status_to(&actions, 0).unwrap().listed, [("c".to_string(), TOPIC.to_string())]);
}

#[test]
fn f6_a_cluster_that_comes_back_goes_on_at_its_offset() {
    let mut enumerator = unbounded();
    enumerator.handle(started(1, vec![])).unwrap();
    enumerator.handle(facts(vec![up("a", 1), up("b", 1)])).unwrap();
    enumerator.handle(facts(vec![up("a", 1)])).unwrap();
    let checkpoint = CheckpointId { generation: 1, number: 1 };
    let splits = vec![at("b/flights/0", 33, None)];
    let actions =
        enumerator.handle(EnumeratorEvent::Released { checkpoint, splits: splits.clone() }).unwrap();
    assert!(assigned(&actions).is_empty(), "it is not listed");
    // Also across a restore at another parallelism.
    let mut restored = FederatedEnumerator::new(Bounds::default(), Some(&enumerator.snapshot())).unwrap();
    restored.handle(started(3, vec![at("a/flights/0", 5, None)])).unwrap();
    let given = assigned(&restored.handle(facts(vec![up("a", 1)])).unwrap());
    assert_eq!(given.into_keys().collect::<Vec<_>>(), ["a/flights/0"]);
    let given = assigned(&restored.handle(facts(vec![up("a", 1), up("b", 1)])).unwrap());
    assert_eq!(given["b/flights/0"].1.next, 33);
    // Heard again, for a later checkpoint: it has an owner now and keeps it.
    let actions = restored.handle(EnumeratorEvent::Released { checkpoint, splits }).unwrap();
    assert!(assigned(&actions).is_empty());
}

#[test]
fn f11_starts_are_by_cluster_and_a_later_partition_starts_at_its_oldest_record() {
    let starts =
        Starts { default: Start::Earliest, clusters: BTreeMap::from([("b".to_string(), Start::Latest)]) };
    let bounds = Bounds { starts, ..Bounds::default() };
    let mut enumerator = FederatedEnumerator::new(bounds, None).unwrap();
    enumerator.handle(started(1, vec![])).unwrap();
    let given = assigned(&enumerator.handle(facts(vec![up("a", 1), up("b", 1)])).unwrap());
    assert_eq!((given["a/flights/0"].1.next, given["b/flights/0"].1.next), (0, 100));
    let given = assigned(&enumerator.handle(facts(vec![up("a", 1), up("b", 2)])).unwrap());
    assert_eq!(given["b/flights/1"].1.next, 0);
}

#[test]
fn until_latest_fixes_each_end_once_and_a_restore_has_the_same_ends() {
    let mut enumerator = bounded();
    enumerator.handle(started(1, vec![])).unwrap();
    let actions = enumerator.handle(facts(vec![up("a", 2), down("b")])).unwrap();
    assert_eq!(span(&assigned(&actions)["a/flights/0"].1), (0, Some(100)));
    assert!(!no_more(&actions), "b was never seen: the end is not known");
    // More was written meanwhile, and the process was killed.
    let later = HoldingFact {
        partitions: vec![partition(0, 0, 500), partition(1, 0, 500), partition(2, 0, 500)],
        ..up("a", 0)
    };
    let mut restored = FederatedEnumerator::new(until_latest(), Some(&enumerator.snapshot())).unwrap();
    let held = vec![at("a/flights/0", 60, Some(100)), at("a/flights/1", 100, Some(100))];
    restored.handle(started(2, held)).unwrap();
    let given = assigned(&restored.handle(facts(vec![later.clone(), down("b")])).unwrap());
    assert_eq!(given.len(), 1, "the one that is at its end is finished");
    assert_eq!(span(&given["a/flights/0"].1), (60, Some(100)));
    let actions = restored.handle(facts(vec![later, up("b", 1)])).unwrap();
    assert_eq!(assigned(&actions).into_keys().collect::<Vec<_>>(), ["b/flights/0"], "no partition is added");
    assert!(no_more(&actions));
    let actions = restored.handle(facts(vec![up("a", 2), up("b", 1), up("c", 1)])).unwrap();
    assert!(assigned(&actions).is_empty() && !no_more(&actions), "after the end nothing is added");
}

#[test]
fn an_empty_bounded_topic_ends_at_once() {
    let mut enumerator = bounded();
    enumerator.handle(started(1, vec![])).unwrap();
    let empty = HoldingFact { partitions: vec![partition(0, 7, 7)], ..up("a", 0) };
    let actions = enumerator.handle(facts(vec![empty])).unwrap();
    assert!(assigned(&actions).is_empty() && no_more(&actions));
}

#[test]
fn offsets_given_as_ends_are_kept() {
    let ends = BTreeMap::from([("a".to_string(), BTreeMap::from([(0, 12)]))]);
    let bounds = Bounds { until: Some(Until::Offsets(ends)), ..Bounds::default() };
    let mut enumerator = FederatedEnumerator::new(bounds, None).unwrap();
    enumerator.handle(started(1, vec![])).unwrap();
    let given = assigned(&enumerator.handle(facts(vec![up("a", 2)])).unwrap());
    assert_eq!((given["a/flights/0"].1.end, given["a/flights/1"].1.end), (Some(12), Some(100)));
}

#[test]
fn a_lower_offset_that_is_newer_wins() {
    let mut enumerator = unbounded();
    enumerator.handle(started(1, vec![])).unwrap();
    let low = HoldingFact { partitions: vec![partition(0, 5_000, 9_000)], ..up("a", 0) };
    let given = assigned(&enumerator.handle(facts(vec![low.clone()])).unwrap());
    let given = given["a/flights/0"].1;
    assert_eq!(given.next, 5_000);
    // The broker has lost its log, and the reader went back, as it was told to.
    let back = held("a/flights/0", Position { next: 7, ..given });
    let mut restored = FederatedEnumerator::new(Bounds::default(), Some(&enumerator.snapshot())).unwrap();
    restored.handle(started(1, vec![back])).unwrap();
    let again = assigned(&restored.handle(facts(vec![low])).unwrap())["a/flights/0"].1;
    assert_eq!((again.next, again.assignment), (7, given.assignment + 1));
    // What an earlier reader of it said does not count any more.
    let mut restored = FederatedEnumerator::new(Bounds::default(), Some(&restored.snapshot())).unwrap();
    restored.handle(started(1, vec![held("a/flights/0", Position { next: 8_000, ..given })])).unwrap();
    assert_eq!(restored.state.splits["a/flights/0"].next, 7);
}

#[test]
fn h5_a_state_of_version_1_goes_on_where_its_readers_were() {
    let old = br#"{"version":1,"listed":[["a","flights"]],"discovered":[["a","flights"]],
        "splits":{"a/flights/0":{"place":{"Owned":0},"next":3,"end":null}}}"#;
    let mut restored = FederatedEnumerator::new(Bounds::default(), Some(old)).unwrap();
    let mut position = vec![1];
    position.extend(40i64.to_be_bytes());
    position.extend(i64::MIN.to_be_bytes());
    restored.handle(started(1, vec![SplitState { id: SplitId("a/flights/0".into()), position }])).unwrap();
    let given = assigned(&restored.handle(facts(vec![up("a", 1)])).unwrap())["a/flights/0"].1;
    assert_eq!((given.next, given.topic_id), (40, Some(TopicId([1; 16]))));
}

fn recreated(cluster: &str, partitions: i32) -> HoldingFact {
    HoldingFact { topic_id: Some(TopicId([2; 16])), ..up(cluster, partitions) }
}

#[test]
fn a_topic_that_was_made_anew_fails_the_job_and_is_named() {
    let mut enumerator = unbounded();
    enumerator.handle(started(1, vec![])).unwrap();
    enumerator.handle(facts(vec![up("a", 1), up("b", 1)])).unwrap();
    let error = enumerator.handle(facts(vec![up("a", 1), recreated("b", 1)])).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("b/flights") && text.contains("on_topic_recreated") && !error.is_retryable(),
        "{text}"
    );
    assert!(
        text.contains(&TopicId([1; 16]).to_string()) && text.contains(&TopicId([2; 16]).to_string()),
        "{text}"
    );
    // As well when it was made anew while nothing ran.
    let mut restored = FederatedEnumerator::new(Bounds::default(), Some(&enumerator.snapshot())).unwrap();
    restored.handle(started(1, vec![at("b/flights/0", 50, None)])).unwrap();
    assert!(restored.handle(facts(vec![up("a", 1), recreated("b", 1)])).is_err());
}

fn restarting() -> Bounds {
    Bounds { on_topic_recreated: OnTopicRecreated::Restart, ..Bounds::default() }
}

#[test]
fn a_topic_that_was_made_anew_is_taken_back_and_read_from_its_beginning() {
    let mut enumerator = FederatedEnumerator::new(restarting(), None).unwrap();
    enumerator.handle(started(1, vec![])).unwrap();
    enumerator.handle(facts(vec![up("a", 2)])).unwrap();
    // While it is not seen whole nothing goes on, nor does anything begin.
    let part = HoldingFact { complete: false, ..recreated("a", 1) };
    let actions = enumerator.handle(facts(vec![part])).unwrap();
    assert_eq!(status_to(&actions, 0).unwrap().topic_ids[0].2, TopicId([2; 16]), "readers stop");
    assert!(!actions.iter().any(|action| matches!(action, EnumeratorAction::Release { .. })));
    // It has one partition less.
    let actions = enumerator.handle(facts(vec![recreated("a", 1)])).unwrap();
    let splits = vec![SplitId("a/flights/0".into()), SplitId("a/flights/1".into())];
    assert!(actions.contains(&EnumeratorAction::Release { subtask: 0, splits }));
    let checkpoint = CheckpointId { generation: 1, number: 1 };
    let splits = vec![at("a/flights/0", 70, None), at("a/flights/1", 70, None)];
    let (snapshot, held) = (enumerator.snapshot(), splits.clone());
    let actions = enumerator.handle(EnumeratorEvent::Released { checkpoint, splits }).unwrap();
    let expected = |actions: &[EnumeratorAction]| {
        let given = assigned(actions);
        assert_eq!(given.keys().collect::<Vec<_>>(), ["a/flights/0"]);
        let position = given["a/flights/0"].1;
        assert_eq!((position.next, position.topic_id), (0, Some(TopicId([2; 16]))));
    };
    expected(&actions);
    // The same after a restore from the checkpoint in between.
    let mut restored = FederatedEnumerator::new(restarting(), Some(&snapshot)).unwrap();
    restored.handle(started(2, held)).unwrap();
    expected(&restored.handle(facts(vec![recreated("a", 1)])).unwrap());
}

#[test]
fn a_topic_that_was_made_anew_while_nothing_ran_is_read_from_its_beginning() {
    let mut enumerator = FederatedEnumerator::new(restarting(), None).unwrap();
    enumerator.handle(started(1, vec![])).unwrap();
    enumerator.handle(facts(vec![up("a", 1)])).unwrap();
    let mut restored = FederatedEnumerator::new(restarting(), Some(&enumerator.snapshot())).unwrap();
    restored.handle(started(1, vec![at("a/flights/0", 50, None)])).unwrap();
    let given = assigned(&restored.handle(facts(vec![recreated("a", 1)])).unwrap());
    assert_eq!(given["a/flights/0"].1.next, 0);
}

#[test]
fn a_bounded_reading_fails_when_what_it_has_not_read_was_made_anew() {
    let bounds = Bounds { until: Some(Until::Latest), ..restarting() };
    let mut enumerator = FederatedEnumerator::new(bounds, None).unwrap();
    enumerator.handle(started(1, vec![])).unwrap();
    enumerator.handle(facts(vec![up("a", 1), up("b", 1)])).unwrap();
    let split = at("a/flights/0", 100, Some(100));
    enumerator.handle(EnumeratorEvent::Finished { subtask: 0, split }).unwrap();
    assert!(enumerator.handle(facts(vec![recreated("a", 1), up("b", 1)])).is_ok(), "a is read to its end");
    let error = enumerator.handle(facts(vec![recreated("a", 1), recreated("b", 1)])).unwrap_err();
    assert!(error.to_string().contains("bounded"), "{error}");
}

#[test]
fn a_damaged_state_is_refused() {
    assert!(FederatedEnumerator::new(Bounds::default(), Some(b"{")).is_err());
    let newer = br#"{"version":3,"listed":[],"discovered":[],"splits":{}}"#;
    let error = FederatedEnumerator::new(Bounds::default(), Some(newer)).err().unwrap();
    assert!(error.to_string().contains("version 3"), "{error}");
}

#[derive(Clone, Debug)]
enum Happening {
    Look(Vec<(usize, u8, i32)>),
    Checkpoint,
    Restart(u32),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => proptest::collection::vec((0usize..3, 0u8..3, 1i32..4), 0..4).prop_map(Happening::Look),
        2 => Just(Happening::Checkpoint),
        1 => (1u32..4).prop_map(Happening::Restart),
    ]
}

/// A little world around an enumerator: readers that hold splits and read on, checkpoints that
/// complete, restarts from the last of them.
#[derive(Default)]
struct World {
    owner: BTreeMap<String, (u32, Position)>,
    releasing: BTreeSet<String>,
    checkpoint: Option<(Vec<u8>, Vec<SplitState>)>,
    ever: BTreeSet<String>,
}

impl World {
    fn apply(&mut self, actions: Vec<EnumeratorAction>) {
        for action in actions {
            match action {
                EnumeratorAction::Assign { subtask, splits } => {
                    for split in splits {
                        let position = Position::decode(&split.position).unwrap();
                        let id = split.id.to_string();
                        self.ever.insert(id.clone());
                        assert!(
                            self.owner.insert(id.clone(), (subtask, position)).is_none(),
                            "{id} owned twice"
                        );
                    }
                }
                EnumeratorAction::Release { splits, .. } => {
                    self.releasing.extend(splits.iter().map(ToString::to_string));
                }
                _ => {}
            }
        }
    }
}

proptest! {
    /// F9 in a first form: whatever comes and goes, no split is owned twice, and none goes back
    /// behind the last checkpoint or is forgotten.
    #[test]
    fn f9_no_split_is_lost_or_owned_twice(happenings in proptest::collection::vec(happening(), 1..40)) {
        let mut enumerator = unbounded();
        let mut world = World::default();
        enumerator.handle(started(2, vec![])).unwrap();
        let mut number = 0;
        for happening in happenings {
            match happening {
                Happening::Look(seen) => {
                    let mut holdings: BTreeMap<usize, HoldingFact> = BTreeMap::new();
                    for (cluster, state, partitions) in seen {
                        let name = ["a", "b", "c"][cluster];
                        let fact = match state { 0 => down(name), 1 => away(up(name, partitions)), _ => up(name, partitions) };
                        holdings.insert(cluster, fact);
                    }
                    let actions = enumerator.handle(facts(holdings.into_values().collect())).unwrap();
                    world.apply(actions);
                    for (_, position) in world.owner.values_mut() { position.next += 3; }
                }
                Happening::Checkpoint => {
                    number += 1;
                    let snapshot = enumerator.snapshot();
                    let read: Vec<_> = world.owner.iter().map(|(id, (_, position))| held(id, *position)).collect();
                    let checkpoint = CheckpointId { generation: 1, number };
                    world.checkpoint = Some((snapshot, read));
                    let released = std::mem::take(&mut world.releasing);
                    let splits: Vec<_> = released
                        .iter()
                        .filter_map(|id| world.owner.remove(id).map(|(_, position)| held(id, position)))
                        .collect();
                    if !splits.is_empty() {
                        let actions = enumerator.handle(EnumeratorEvent::Released { checkpoint, splits }).unwrap();
                        world.apply(actions);
                    }
                }
                Happening::Restart(parallelism) => {
                    world.owner.clear();
                    world.releasing.clear();
                    let (snapshot, restored) = match &world.checkpoint {
                        Some((snapshot, held)) => (Some(snapshot.clone()), held.clone()),
                        None => (None, vec![]),
                    };
                    enumerator = FederatedEnumerator::new(Bounds::default(), snapshot.as_deref()).unwrap();
                    let floor: BTreeMap<_, _> = restored
                        .iter()
                        .map(|split| (split.id.to_string(), Position::decode(&split.position).unwrap().next))
                        .collect();
                    let actions = enumerator.handle(started(parallelism, restored)).unwrap();
                    world.apply(actions);
                    for (id, next) in &floor {
                        let known = enumerator.state.splits.get(id);
                        prop_assert!(known.is_some_and(|entry| entry.next >= *next), "{id} went back or was lost");
                    }
                }
            }
        }
        // Everything comes back in the end: every split that was ever read is read again.
        let actions = enumerator.handle(facts(vec![up("a", 3), up("b", 3), up("c", 3)])).unwrap();
        world.apply(actions);
        for id in &world.ever {
            prop_assert!(world.owner.contains_key(id), "{id} is owned by nobody");
        }
    }
}

#[test]
fn a_reading_that_has_no_end_any_more_goes_on_where_it_is() {
    let mut enumerator = bounded();
    enumerator.handle(started(1, vec![])).unwrap();
    let given = assigned(&enumerator.handle(facts(vec![up("east", 2)])).unwrap());
    let (_, position) = given["east/flights/0"];
    let finished = split_state(&SplitId("east/flights/0".into()), Position { next: 100, ..position });
    enumerator.handle(EnumeratorEvent::Finished { subtask: 0, split: finished }).unwrap();
    let (_, position) = given["east/flights/1"];
    let held = split_state(&SplitId("east/flights/1".into()), Position { next: 40, ..position });
    let mut unbounded = FederatedEnumerator::new(Bounds::default(), Some(&enumerator.snapshot())).unwrap();
    let mut actions = unbounded.handle(started(1, vec![held])).unwrap();
    actions.extend(unbounded.handle(facts(vec![up("east", 2)])).unwrap());
    let given = assigned(&actions);
    let at = |split: &str| (given[split].1.next, given[split].1.end);
    assert_eq!(at("east/flights/0"), (100, None), "what was finished goes on");
    assert_eq!(at("east/flights/1"), (40, None), "and what was not, beyond its end");
    assert!(!no_more(&actions));
}
