//! What a checkpoint holds for one instance of an operator.

use crate::checkpoint::{KeyedHandle, SnapshotPart};
use crate::source::SplitState;

/// The parts that this instance is given at a restore: keyed handles that overlap its key groups,
/// its share of lists, all of unions. Empty at a fresh start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoredState {
    /// The parts.
    pub parts: Vec<SnapshotPart>,
}

impl RestoredState {
    /// Whether there is anything: an operator without parts starts fresh.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The keyed handles, in a stable order.
    pub fn keyed(&self) -> impl Iterator<Item = &KeyedHandle> {
        self.parts.iter().filter_map(|part| match part {
            SnapshotPart::Keyed(handle) => Some(handle),
            _ => None,
        })
    }

    /// The items of a list or union state.
    pub fn items<'a>(&'a self, state: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.parts.iter().flat_map(move |part| match part {
            SnapshotPart::List { name, items } | SnapshotPart::Union { name, items } if name == state => {
                items.iter().map(Vec::as_slice).collect::<Vec<_>>()
            }
            _ => Vec::new(),
        })
    }

    /// The splits.
    pub fn splits(&self) -> impl Iterator<Item = &SplitState> {
        self.parts.iter().flat_map(|part| match part {
            SnapshotPart::Splits(splits) => splits.as_slice(),
            _ => &[],
        })
    }
}
