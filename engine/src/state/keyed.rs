//! The keyed state of one instance of an operator.

use crate::operator::OpenContext;
use crate::{Error, Result};

/// What an operator says about its keyed state when it opens it.
#[derive(Clone, Debug, Default)]
pub struct KeyedStateSpec {
    /// Bytes of decoded values to keep in front of the store.
    pub cache_bytes_max: usize,
}

/// The keyed state of one instance of an operator.
pub struct KeyedState {}

impl KeyedState {
    /// Opens the state.
    ///
    /// # Errors
    /// An external error when the store or the snapshot cannot be read.
    pub fn open(cx: &mut OpenContext<'_>, spec: KeyedStateSpec) -> Result<KeyedState> {
        let _ = (cx, spec);
        Err(Error::internal("keyed state is not there yet"))
    }
}
