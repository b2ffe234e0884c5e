//! What an operator says about its columnar state, and where the words of a slot's row lie.

use arrow::datatypes::DataType;

use crate::time::Micros;

/// What a word of a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordKind {
    /// A number of 64 bits, or bits of the owner's own; 0 in a new state.
    Plain,
    /// A handle to bytes of any length, or none; none in a new state.
    Bytes,
}

/// What an operator says about its columnar state when it opens it.
#[derive(Clone, Debug)]
pub struct ColumnarSpec {
    /// The types of the key's columns.
    pub key: Vec<DataType>,
    /// Whether a key has one state per namespace (a window) or just one.
    pub namespaced: bool,
    /// The state's words.
    pub words: Vec<WordKind>,
    /// For a namespaced state: the store's timer family gets an entry at `namespace + offset` for
    /// each of these, so that what was evicted is found again when it is due. Microseconds.
    pub timer_offsets: Vec<Micros>,
    /// What the words mean, stable between processes; a restore with another description is refused.
    pub describe: String,
    /// The part of `describe` from which the timer offsets behind the first are made. Its number may
    /// be another in a checkpoint, whose timers are then set anew. Empty: nothing may be another.
    pub describe_timers: String,
    /// Bytes that the table may take in memory, index included. More is reached only by one batch,
    /// and while a checkpoint is being written.
    pub bytes_max: usize,
}

/// Word 0 of a row: tag (32 bits), flags, and the number of the batch that touched it last.
pub(super) const HEADER: usize = 0;
/// Word 1 of a row: the key itself, or the handle of its encoding.
pub(super) const KEY: usize = 1;
/// Word 2 of a row, when there are namespaces.
pub(super) const NAMESPACE: usize = 2;

/// The key is null, and its word 0.
pub(super) const NULL_KEY: u64 = 1 << 29;
/// The batch that touched the slot last.
pub(super) const EPOCH_MASK: u64 = (1 << 29) - 1;

/// Where the words of a row lie.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// Words of a row.
    pub(super) stride: usize,
    /// The first state word.
    pub(super) state: usize,
    pub(super) namespaced: bool,
    /// The state's words.
    pub(super) words: Vec<WordKind>,
    /// Which words of a row are handles, the key's included.
    pub(super) handles: Vec<usize>,
}

impl Layout {
    pub(super) fn new(words: &[WordKind], namespaced: bool, byte_key: bool) -> Self {
        let state = if namespaced { NAMESPACE + 1 } else { KEY + 1 };
        let mut handles = Vec::new();
        if byte_key {
            handles.push(KEY);
        }
        let in_state = words.iter().enumerate().filter(|(_, kind)| **kind == WordKind::Bytes);
        handles.extend(in_state.map(|(index, _)| state + index));
        Layout { stride: state + words.len(), state, namespaced, words: words.to_vec(), handles }
    }

    /// The namespace of a row; 0 where there is none.
    pub(super) fn namespace(&self, row: &[u64]) -> i64 {
        if self.namespaced { row[NAMESPACE] as i64 } else { 0 }
    }
}
