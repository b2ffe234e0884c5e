//! Vectorised keyed state: a batch of keys in, a batch of dense slots out, and the state of a slot
//! as a short row of 64-bit words that built-in operators update column by column.
//!
//! # Costs
//! A key costs `8 * (2 + namespace + state words)` bytes and about 16 bytes of index. A look-up
//! touches two cache lines that are not in a near cache (a bucket, and the slot's row, which holds
//! key and state together); both are prefetched a block of rows ahead. No allocation per row.
//! At a barrier the task copies the dirty rows when they are few ([`COPY_BYTES_MAX`]) and shares
//! their chunks when they are many: then a chunk of 64 rows is copied when it is first written
//! while the helper thread still needs it.
//!
//! # The rules
//! - Between a freeze and the end of the helper's writing nobody else writes to the store: nothing
//!   dirty or frozen is evicted meanwhile, so a look-up in the store never reads a stale value.
//! - A deleted key that the store may hold stays as a tombstone until its delete is written. What
//!   may become of a key, in memory and in the store, is one table (`slot_state.rs`).
//! - A slot found for a batch stays valid until the next call of `look_up`.
//!
//! This module knows the store by its traits, and no aggregate or window.

mod arena;
mod chunks;
mod evict;
mod flush;
mod frozen_rows;
mod index;
mod key;
mod layout;
mod look_up;
mod meta;
mod slot_state;
mod state;
mod timers;

#[cfg(test)]
mod tests;

pub use chunks::COPY_BYTES_MAX;
pub use layout::{ColumnarSpec, WordKind};
pub use look_up::Touched;
pub use state::{ColumnarState, Rows};
pub use timers::TimerCursor;
