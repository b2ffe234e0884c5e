//! Keyed state: key groups, the pinned key encoding and hash, the stores that state lives in,
//! and the states and timers that operators use.
//!
//! An operator owns its [`KeyedState`]; stores belong to operators (uid x subtask), never to
//! tasks, so that a job that chains differently tomorrow still finds its state.

pub mod key_by;
pub mod key_encoding;
mod key_group;
mod keyed;
mod restored;
mod store;

pub use key_group::{KeyGroup, KeyGroupRange, MAX_PARALLELISM_LIMIT};
pub use keyed::{KeyedState, KeyedStateSpec};
pub use restored::RestoredState;
pub use store::{Family, KvOp, KvSnapshotter, KvStore, StateBackend, StoreSite};
