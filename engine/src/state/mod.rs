//! Keyed state: key groups, the pinned key encoding and hash, the stores that state lives in,
//! and the states and timers that operators use.
//!
//! An operator owns its [`KeyedState`]; stores belong to operators (uid x subtask), never to
//! tasks, so that a job that chains differently tomorrow still finds its state.

mod codec;
pub mod columnar;
mod current_key;
mod frozen;
mod identity;
pub mod key_by;
mod key_bytes;
mod key_decoding;
pub mod key_encoding;
mod key_group;
mod keyed;
mod layer;
mod list;
mod locked_directory;
mod map;
mod map_key;
mod map_store;
mod map_unit;
mod memory_plan;
mod op_sink;
mod owned_directory;
#[cfg(feature = "rocksdb")]
mod parallel;
mod restored;
#[cfg(feature = "rocksdb")]
mod rocks_backend;
#[cfg(feature = "rocksdb")]
mod rocks_options;
#[cfg(feature = "rocksdb")]
mod rocks_restore;
#[cfg(feature = "rocksdb")]
mod rocks_snapshot;
#[cfg(feature = "rocksdb")]
mod rocks_store;
mod state_meta;
mod state_size;
mod store;
mod table;
mod timer_key;
mod timer_overlay;
mod timer_queue;
mod timers;
mod timestamp;
mod unit;
mod value;
mod varint;

#[cfg(test)]
mod tests;

pub use codec::Codec;
pub use identity::{StateIdentity, type_word};
pub use key_group::{KeyGroup, KeyGroupRange, MAX_PARALLELISM_LIMIT};
pub use keyed::{KeyedState, KeyedStateSpec};
pub use list::ListState;
pub use locked_directory::LockedDirectory;
pub use map::MapState;
pub use map_key::MapKey;
pub use map_store::MapBackend;
pub use memory_plan::{MemoryPlan, MemoryRequest};
pub use restored::RestoredState;
#[cfg(feature = "rocksdb")]
pub use rocks_backend::RocksBackend;
#[cfg(feature = "rocksdb")]
pub use rocks_options::RocksConfig;
pub use state_size::{StateSize, StateValue};
pub use store::{Family, KvOp, KvSnapshotter, KvStore, StateBackend, StoreSite};
pub use thalweg_derive::StateSize;
pub use timer_key::Timer;
pub use value::ValueState;
