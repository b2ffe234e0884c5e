//! Which objects may be deleted. Pure: names in, names out; the coordinator deletes.
//!
//! The rules: only a name that a retired manifest had, and that no retained manifest and no
//! pending checkpoint has, is deleted; a listing alone never condemns an object of the own
//! generation, for it may belong to a checkpoint that is being made. Retirement stands in the log
//! before anything is deleted ([`super::JobLog::retire`]).

use std::collections::{BTreeMap, BTreeSet};

use super::{CheckpointId, JobLayout, ObjectInfo};
use crate::time::Micros;

/// How long after a claim orphans of lower generations are left alone, in microseconds: time for
/// a predecessor that still runs to find out that it is fenced.
pub const ORPHAN_GRACE: Micros = 10 * 60 * 1_000_000;

/// What a coordinator holds and has let go, by the names of objects.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    retained: BTreeMap<CheckpointId, BTreeSet<String>>,
    pending: BTreeMap<CheckpointId, BTreeSet<String>>,
    /// Names that retired manifests had and that are not known to be deleted.
    owed: BTreeSet<String>,
}

impl Collector {
    /// A collector that holds nothing yet.
    pub fn new() -> Collector {
        Collector::default()
    }

    /// Holds a published checkpoint: one that the log named at the claim, or one that was
    /// published since ([`super::Manifest::names`]).
    pub fn retain(&mut self, checkpoint: CheckpointId, names: BTreeSet<String>) {
        self.pending.remove(&checkpoint);
        self.retained.insert(checkpoint, names);
    }

    /// A checkpoint is being made; `known` are the files whose upload it may skip
    /// ([`super::SnapshotSite::known`]).
    pub fn begin(&mut self, checkpoint: CheckpointId, known: impl IntoIterator<Item = String>) {
        self.pending.insert(checkpoint, known.into_iter().collect());
    }

    /// A checkpoint will never be published. What it uploaded is swept as an orphan by the next
    /// generation: the next checkpoint's sinks may still refer to segments of this one.
    pub fn abort(&mut self, checkpoint: CheckpointId) {
        self.pending.remove(&checkpoint);
    }

    /// A checkpoint was retired in the log.
    pub fn retire(&mut self, checkpoint: CheckpointId) {
        self.owed.extend(self.retained.remove(&checkpoint).unwrap_or_default());
    }

    /// The names that may be deleted now. They are named again until [`Collector::deleted`].
    pub fn collectable(&self) -> Vec<String> {
        collectable(&self.owed, self.retained.values().chain(self.pending.values()))
    }

    /// An object is deleted.
    pub fn deleted(&mut self, name: &str) {
        self.owed.remove(name);
    }

    /// The orphans in a listing; see [`orphans`].
    pub fn orphans(&self, layout: &JobLayout, generation: u64, listed: &[ObjectInfo]) -> Vec<String> {
        orphans(layout, generation, listed, self.retained.values().chain(self.pending.values()))
    }
}

/// The names of `retired` that nothing in `held` has.
pub fn collectable<'a>(
    retired: &BTreeSet<String>,
    held: impl IntoIterator<Item = &'a BTreeSet<String>>,
) -> Vec<String> {
    let held: Vec<_> = held.into_iter().collect();
    retired.iter().filter(|name| !held.iter().any(|names| names.contains(*name))).cloned().collect()
}

/// The objects in a listing that a lower generation left behind: written by it, and named by
/// nothing in `held`. Call it only after `generation` was claimed and [`may_sweep`] agrees, with
/// `held` covering every checkpoint that the log has published and not retired.
pub fn orphans<'a>(
    layout: &JobLayout,
    generation: u64,
    listed: &[ObjectInfo],
    held: impl IntoIterator<Item = &'a BTreeSet<String>>,
) -> Vec<String> {
    let left: BTreeSet<_> = listed
        .iter()
        .filter(|object| layout.written_by(&object.path).is_some_and(|id| id.generation < generation))
        .map(|object| object.path.clone())
        .collect();
    collectable(&left, held)
}

/// Whether the grace period after a claim is over.
pub fn may_sweep(claimed_at: Micros, now: Micros, grace: Micros) -> bool {
    now.saturating_sub(claimed_at) >= grace
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(generation: u64, number: u64) -> CheckpointId {
        CheckpointId { generation, number }
    }

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_name_lives_as_long_as_anybody_has_it() {
        let mut collector = Collector::new();
        collector.retain(id(1, 1), names(&["a", "b", "m1"]));
        collector.begin(id(1, 2), ["a".into(), "b".into()]);
        collector.begin(id(1, 3), ["a".into(), "b".into()]);
        collector.retain(id(1, 2), names(&["b", "c", "m2"]));
        collector.retire(id(1, 1));
        assert_eq!(collector.collectable(), ["m1"], "checkpoint 3 may still name a and b");
        collector.deleted("m1");
        collector.abort(id(1, 3));
        assert_eq!(collector.collectable(), ["a"]);
        assert_eq!(collector.collectable(), ["a"], "named again until it is deleted");
        collector.deleted("a");
        assert!(collector.collectable().is_empty());
    }

    #[test]
    fn only_what_lower_generations_left_is_an_orphan() {
        let layout = JobLayout::new("job").unwrap();
        let (kept, left) = (layout.shared(id(1, 4), "aa"), layout.shared(id(1, 5), "bb"));
        let own = layout.shared(id(2, 6), "cc");
        let staged =
            layout.private(id(1, 4), &crate::graph::Uid::new("sink").unwrap(), 0, "segment").unwrap();
        let foreign = ["job/log/00000000000000000001", "job/savepoints/s/manifest", "job2/shared/1-5-bb.sst"];
        let mut all = vec![kept.clone(), left.clone(), own, staged.clone(), layout.manifest(id(1, 3))];
        all.extend(foreign.map(String::from));
        let listed: Vec<_> = all.into_iter().map(|path| ObjectInfo { path, bytes: 1 }).collect();
        let mut collector = Collector::new();
        collector.retain(id(1, 4), BTreeSet::from([kept, staged]));
        assert_eq!(collector.orphans(&layout, 2, &listed), [layout.manifest(id(1, 3)), left]);
        assert!(!may_sweep(100, 100 + ORPHAN_GRACE - 1, ORPHAN_GRACE));
        assert!(may_sweep(100, 100 + ORPHAN_GRACE, ORPHAN_GRACE));
    }

    /// What may happen to a job's checkpoints, each with the chance of a deletion in between.
    #[derive(Clone, Debug)]
    enum Happening {
        Begin,
        /// A pending one (by index) is published: it keeps some of the files that it knew and
        /// adds new ones.
        Publish {
            pending: usize,
            keeps: u8,
            adds: u8,
        },
        Abort {
            pending: usize,
        },
        Retire,
        /// Deletes some of what may be deleted; `mask` chooses which deletions succeed.
        Collect {
            mask: u8,
        },
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            3 => Just(Happening::Begin),
            3 => (0..4usize, any::<u8>(), 0..4u8).prop_map(|(pending, keeps, adds)| Happening::Publish {
                pending, keeps, adds
            }),
            1 => (0..4usize).prop_map(|pending| Happening::Abort { pending }),
            2 => Just(Happening::Retire),
            2 => any::<u8>().prop_map(|mask| Happening::Collect { mask }),
        ]
    }

    proptest! {
        /// No object that a retained or a pending checkpoint needs is ever deleted; and when all
        /// but the last checkpoint are retired and nothing is pending, exactly its names are left.
        #[test]
        fn nothing_needed_is_deleted_and_nothing_leaks(story in prop::collection::vec(happening(), 1..80)) {
            let mut collector = Collector::new();
            let mut store = BTreeSet::new();
            let mut retained: Vec<(CheckpointId, BTreeSet<String>)> = Vec::new();
            let mut pending: Vec<(CheckpointId, BTreeSet<String>)> = Vec::new();
            let mut number = 0;
            let collect = |collector: &mut Collector, store: &mut BTreeSet<String>, mask: u8| {
                for (at, name) in collector.collectable().into_iter().enumerate() {
                    if mask & (1 << (at % 8)) != 0 {
                        store.remove(&name);
                        collector.deleted(&name);
                    }
                }
            };
            for happening in story {
                match happening {
                    Happening::Begin if pending.len() < 4 => {
                        number += 1;
                        let known = retained.last().map(|(_, names)| names.clone()).unwrap_or_default();
                        let known: BTreeSet<_> = known.into_iter().filter(|name| name.starts_with('f')).collect();
                        collector.begin(id(1, number), known.iter().cloned());
                        pending.push((id(1, number), known));
                    }
                    Happening::Publish { pending: at, keeps, adds } if at < pending.len() => {
                        let (checkpoint, known) = pending.remove(at);
                        // As the coordinator does: one that a newer one has overtaken is dropped.
                        if retained.last().is_some_and(|(last, _)| *last > checkpoint) {
                            collector.abort(checkpoint);
                            continue;
                        }
                        let mut names: BTreeSet<_> = known.into_iter().enumerate()
                            .filter(|(at, _)| keeps & (1 << (at % 8)) != 0).map(|(_, name)| name).collect();
                        let new = (0..adds).map(|add| format!("f{}-{add}", checkpoint.number));
                        let new: Vec<_> = new.chain([format!("m{}", checkpoint.number)]).collect();
                        store.extend(new.iter().cloned());
                        names.extend(new);
                        collector.retain(checkpoint, names.clone());
                        retained.push((checkpoint, names));
                    }
                    Happening::Abort { pending: at } if at < pending.len() => {
                        collector.abort(pending.remove(at).0);
                    }
                    Happening::Retire if retained.len() > 1 => collector.retire(retained.remove(0).0),
                    Happening::Collect { mask } => collect(&mut collector, &mut store, mask),
                    _ => {}
                }
                for (checkpoint, names) in retained.iter().chain(&pending) {
                    prop_assert!(names.is_subset(&store), "{checkpoint} lost {:?}", names.difference(&store));
                }
            }
            pending.drain(..).for_each(|(checkpoint, _)| collector.abort(checkpoint));
            while retained.len() > 1 {
                collector.retire(retained.remove(0).0);
            }
            collect(&mut collector, &mut store, u8::MAX);
            let needed = retained.pop().map(|(_, names)| names).unwrap_or_default();
            prop_assert_eq!(store, needed);
        }
    }
}
