//! What a manifest holds that a job could take over, and the manifest as a job takes it over. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Manifest, OperatorState};
use crate::checkpoint::{CarryOver, HeldJob, HeldState, SnapshotPart};
use crate::graph::Uid;

impl Manifest {
    /// What it holds, for [`crate::checkpoint::carry_over`].
    pub fn held(&self) -> HeldJob {
        let uncommitted: BTreeSet<&Uid> =
            self.committables.iter().map(|committable| &committable.uid).collect();
        let uids: BTreeSet<&Uid> = self.operators.keys().chain(uncommitted.iter().copied()).collect();
        let state = |uid: &Uid| {
            let operator = self.operators.get(uid);
            let what = operator.and_then(OperatorState::what);
            let what = what.or_else(|| uncommitted.contains(uid).then(|| "uncommitted output".to_string()));
            let identity = operator.and_then(|operator| operator.identity.clone());
            (identity.is_some() || what.is_some()).then(|| HeldState { uid: uid.clone(), identity, what })
        };
        HeldJob {
            checkpoint: self.checkpoint,
            is_finished: !self.operators.is_empty()
                && self.operators.values().all(OperatorState::is_finished),
            max_parallelism: self.max_parallelism,
            states: uids.into_iter().filter_map(state).collect(),
        }
    }

    /// The manifest with what is kept, each under its uid in the job, and nothing else.
    #[must_use]
    pub fn taken_over(mut self, carry_over: &CarryOver) -> Manifest {
        let kept: BTreeMap<&Uid, &Uid> = carry_over.kept().collect();
        let mut operators = std::mem::take(&mut self.operators);
        let states = kept.iter().filter_map(|(from, to)| Some(((*to).clone(), operators.remove(*from)?)));
        self.operators = states.collect();
        self.committables.retain(|committable| kept.contains_key(&committable.uid));
        for committable in &mut self.committables {
            if let Some(to) = kept.get(&committable.uid) {
                committable.uid = (*to).clone();
            }
        }
        self
    }
}

impl OperatorState {
    /// What there is of its state, for people; `None` when there is nothing.
    fn what(&self) -> Option<String> {
        if self.enumerator.is_some() {
            return Some("the positions of a source".to_string());
        }
        let is_state = |part: &SnapshotPart| match part {
            SnapshotPart::List { items, .. } | SnapshotPart::Union { items, .. } => !items.is_empty(),
            SnapshotPart::Splits(splits) => !splits.is_empty(),
            SnapshotPart::Keyed(_) | SnapshotPart::Committable(_) => true,
        };
        let instances = self.subtasks.values().filter(|parts| parts.iter().any(is_state)).count();
        (instances > 0).then(|| format!("the state of {instances} instances"))
    }
}
