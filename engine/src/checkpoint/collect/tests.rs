//! What may be deleted, by example and over any story of checkpoints.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::checkpoint::{JobLog, MemoryStorage};

fn id(generation: u64, number: u64) -> CheckpointId {
    CheckpointId { generation, number }
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn layout() -> JobLayout {
    JobLayout::new("job").unwrap()
}

fn claimed() -> JobLog {
    JobLog::claim(Arc::new(MemoryStorage::new()), layout(), "n".into()).unwrap()
}

#[test]
fn a_name_lives_as_long_as_a_manifest_that_is_not_retired_has_it() {
    let (mut log, mut collector) = (claimed(), Collector::new());
    for (number, held) in [(1, names(&["a", "b", "m1"])), (2, names(&["b", "c", "m2"]))] {
        log.publish(id(1, number)).unwrap();
        collector.publish(id(1, number), held);
    }
    collector.follow(log.view());
    assert!(collector.collectable().is_empty(), "nothing is retired");
    log.committed(id(1, 2)).unwrap();
    assert_eq!(collector.retirable(log.view(), 1), [id(1, 1)]);
    log.retire(&[id(1, 1)]).unwrap();
    collector.follow(log.view());
    assert_eq!(collector.collectable(), ["a", "m1"]);
    collector.deleted("a");
    assert_eq!(collector.collectable(), ["m1"], "named again until it is deleted");
}

#[test]
fn what_an_aborted_checkpoint_wrote_goes_when_a_later_one_does_not_name_it() {
    let (mut log, mut collector) = (claimed(), Collector::new());
    collector.wrote(id(1, 1), names(&["half", "segment", "m1"]));
    assert!(collector.collectable().is_empty(), "a sink may carry its segment into checkpoint 2");
    collector.wrote(id(1, 2), names(&["file", "unnamed", "m2"]));
    log.publish(id(1, 2)).unwrap();
    collector.publish(id(1, 2), names(&["segment", "file", "m2"]));
    assert_eq!(collector.collectable(), ["half", "m1", "unnamed"]);
    collector.wrote(id(1, 1), names(&["late"]));
    assert!(collector.collectable().contains(&"late".to_owned()));
    collector.wrote(id(1, 3), names(&["next"]));
    assert!(!collector.collectable().contains(&"next".to_owned()), "3 is being made");
}

#[test]
fn the_checkpoint_that_tasks_build_on_is_not_retired_though_newer_ones_are_published() {
    let (mut log, mut collector) = (claimed(), Collector::new());
    for number in 1..=2 {
        log.publish(id(1, number)).unwrap();
        collector.retain(id(1, number), names(&["a"]));
    }
    log.committed(id(1, 2)).unwrap();
    collector.build_on(id(1, 1));
    assert!(collector.retirable(log.view(), 1).is_empty(), "2 is damaged, 1 was restored");
    log.publish(id(1, 3)).unwrap();
    log.committed(id(1, 3)).unwrap();
    collector.publish(id(1, 3), names(&["a"]));
    assert_eq!(collector.retirable(log.view(), 1), [id(1, 1), id(1, 2)]);
}

#[test]
fn only_what_lower_generations_left_is_an_orphan_until_the_job_is_over() {
    let layout = layout();
    let mut log = claimed();
    log.publish(id(1, 4)).unwrap();
    let (kept, left) = (layout.shared(id(1, 4), "aa"), layout.shared(id(1, 5), "bb"));
    let (own, higher) = (layout.shared(id(2, 6), "cc"), layout.shared(id(3, 7), "dd"));
    let staged = layout.private(id(1, 4), &crate::graph::Uid::new("sink").unwrap(), 0, "segment").unwrap();
    let foreign = ["job/log/00000000000000000001", "job/savepoints/s/manifest", "job2/shared/1-5-bb.sst"];
    let stale = layout.manifest(id(1, 3));
    let mut all = vec![kept.clone(), left.clone(), own.clone(), higher, staged.clone(), stale.clone()];
    all.extend(foreign.map(String::from));
    let listed: Vec<_> = all.into_iter().map(|path| ObjectInfo { path, bytes: 1 }).collect();
    let mut collector = Collector::new();
    let sweep = |after, over| Sweep::new(2, 100, 100 + after, ORPHAN_GRACE, over);
    let due = sweep(ORPHAN_GRACE, false);
    let orphans = |collector: &Collector, sweep| collector.orphans(&layout, log.view(), sweep, &listed);
    assert_eq!(orphans(&collector, due), None, "the manifest of 1-4 could not be read");
    collector.retain(id(1, 4), BTreeSet::from([kept, staged]));
    assert_eq!(orphans(&collector, due).unwrap(), [stale.clone(), left.clone()]);
    assert!(!sweep(ORPHAN_GRACE - 1, false).is_due());
    assert_eq!(orphans(&collector, sweep(ORPHAN_GRACE - 1, true)).unwrap(), std::slice::from_ref(&own));
    assert_eq!(orphans(&collector, sweep(ORPHAN_GRACE, true)).unwrap(), [stale, left, own]);
}

/// What may happen to a job's checkpoints.
#[derive(Clone, Debug)]
enum Happening {
    Begin,
    /// The pending one writes files and segments; of some of them one hears late.
    Write {
        files: u8,
        segments: u8,
        late: bool,
    },
    /// The pending one is published and keeps some of the files that it knew.
    Publish {
        keeps: u8,
    },
    Abort,
    /// Tasks are deployed anew from the newest published one, or from the one before it.
    Restart {
        older: bool,
    },
    HearLate,
    Commit,
    /// Deletes some of what may be deleted; `mask` chooses which deletions succeed.
    Collect {
        mask: u8,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => Just(Happening::Begin),
        4 => (0..3u8, 0..3u8, any::<bool>())
            .prop_map(|(files, segments, late)| Happening::Write { files, segments, late }),
        3 => any::<u8>().prop_map(|keeps| Happening::Publish { keeps }),
        2 => Just(Happening::Abort),
        1 => any::<bool>().prop_map(|older| Happening::Restart { older }),
        1 => Just(Happening::HearLate),
        2 => Just(Happening::Commit),
        2 => any::<u8>().prop_map(|mask| Happening::Collect { mask }),
    ]
}

struct Pending {
    checkpoint: CheckpointId,
    known: BTreeSet<String>,
    files: BTreeSet<String>,
    segments: BTreeSet<String>,
}

/// A job as its collector sees it, and what truly lies in the store.
struct Model {
    log: JobLog,
    collector: Collector,
    store: BTreeSet<String>,
    manifests: BTreeMap<CheckpointId, BTreeSet<String>>,
    base: BTreeSet<String>,
    pending: Option<Pending>,
    /// Segments of aborted checkpoints, which ride with the next.
    carried: BTreeSet<String>,
    late: Vec<(CheckpointId, BTreeSet<String>)>,
    number: u64,
    serial: u64,
}

impl Model {
    fn new() -> Model {
        Model {
            log: claimed(),
            collector: Collector::new(),
            store: BTreeSet::new(),
            manifests: BTreeMap::new(),
            base: BTreeSet::new(),
            pending: None,
            carried: BTreeSet::new(),
            late: Vec::new(),
            number: 0,
            serial: 0,
        }
    }

    fn fresh(&mut self, kind: char, count: u8) -> BTreeSet<String> {
        let first = self.serial;
        self.serial += u64::from(count);
        (first..self.serial).map(|serial| format!("{kind}{serial}")).collect()
    }

    fn step(&mut self, happening: Happening) {
        match happening {
            Happening::Begin if self.pending.is_none() => {
                self.number += 1;
                self.pending = Some(Pending {
                    checkpoint: id(1, self.number),
                    known: self.base.iter().filter(|name| name.starts_with('f')).cloned().collect(),
                    files: BTreeSet::new(),
                    segments: std::mem::take(&mut self.carried),
                });
            }
            Happening::Write { files, segments, late } => self.write(files, segments, late),
            Happening::Publish { keeps } => self.publish(keeps),
            Happening::Abort => {
                if let Some(pending) = self.pending.take() {
                    self.carried = pending.segments;
                }
            }
            Happening::Restart { older } => {
                self.pending = None;
                self.carried.clear();
                let at = self.log.view().published().iter().rev().nth(usize::from(older)).copied();
                if let Some(at) = at {
                    self.base = self.manifests[&at].clone();
                    self.collector.build_on(at);
                }
            }
            Happening::HearLate => {
                for (checkpoint, names) in std::mem::take(&mut self.late) {
                    self.collector.wrote(checkpoint, names);
                }
            }
            Happening::Commit => {
                if let Some(&newest) = self.log.view().published().last() {
                    self.log.committed(newest).unwrap();
                }
            }
            Happening::Collect { mask } => self.collect(mask),
            Happening::Begin => {}
        }
    }

    fn write(&mut self, files: u8, segments: u8, late: bool) {
        let (files, segments) = (self.fresh('f', files), self.fresh('s', segments));
        let Some(pending) = &mut self.pending else { return };
        let all: BTreeSet<_> = files.union(&segments).cloned().collect();
        self.store.extend(all.iter().cloned());
        if late {
            // A task that will not acknowledge: none of it gets into the manifest.
            self.late.push((pending.checkpoint, all));
        } else {
            self.collector.wrote(pending.checkpoint, all);
            pending.files.extend(files);
            pending.segments.extend(segments);
        }
    }

    fn publish(&mut self, keeps: u8) {
        let Some(Pending { checkpoint, known, files, segments }) = self.pending.take() else { return };
        let kept = known.into_iter().enumerate().filter(|(at, _)| keeps & (1 << (at % 8)) != 0);
        let manifest = format!("m{}", checkpoint.number);
        let mut names: BTreeSet<_> = kept.map(|(_, name)| name).collect();
        names.extend(files.into_iter().chain(segments).chain([manifest.clone()]));
        self.collector.wrote(checkpoint, [manifest.clone()]);
        self.store.insert(manifest);
        self.log.publish(checkpoint).unwrap();
        self.collector.publish(checkpoint, names.clone());
        self.manifests.insert(checkpoint, names.clone());
        self.base = names;
    }

    fn collect(&mut self, mask: u8) {
        self.log.retire(&self.collector.retirable(self.log.view(), 1)).unwrap();
        self.collector.follow(self.log.view());
        for (at, name) in self.collector.collectable().into_iter().enumerate() {
            if mask & (1 << (at % 8)) != 0 {
                self.store.remove(&name);
                self.collector.deleted(&name);
            }
        }
    }

    /// What must be in the store: what the log names, what tasks build on, and what is carried.
    fn needed(&self) -> BTreeSet<String> {
        let published = self.log.view().published().iter().flat_map(|at| self.manifests[at].iter());
        let pending = self
            .pending
            .iter()
            .flat_map(|pending| pending.known.iter().chain(&pending.files).chain(&pending.segments));
        published.chain(&self.base).chain(&self.carried).chain(pending).cloned().collect()
    }
}

proptest! {
    /// No object that a restore, a commit or the next checkpoint needs is ever deleted; and when a
    /// last checkpoint is published, all before it are retired and everything is heard of, exactly
    /// its names are left.
    #[test]
    fn h4_nothing_needed_is_deleted_and_nothing_leaks(story in prop::collection::vec(happening(), 1..80)) {
        let mut model = Model::new();
        for happening in story {
            model.step(happening);
            let needed = model.needed();
            prop_assert!(
                needed.is_subset(&model.store),
                "lost {:?}",
                needed.difference(&model.store)
            );
        }
        let end = [
            Happening::HearLate,
            Happening::Begin,
            Happening::Write { files: 1, segments: 1, late: false },
            Happening::Publish { keeps: u8::MAX },
            Happening::Commit,
            Happening::Collect { mask: u8::MAX },
        ];
        end.into_iter().for_each(|happening| model.step(happening));
        prop_assert_eq!(&model.store, &model.base);
    }
}
