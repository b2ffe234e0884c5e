//! The dataflow itself: what a record is, how operators are put together, how tasks run them,
//! how time, state and checkpoints work, and how a coordinator drives a job.
//!
//! This crate knows no connector, no operator of `thalweg-operators`, no SQL and no Kubernetes.
//! Inside it, [`record`] and [`time`] know nobody; [`runtime`] knows [`state`] and [`checkpoint`]
//! by their traits; [`cluster`] drives [`runtime`]. Logic holds no clock, thread or socket: the
//! threaded executor lends them in production, the simulated one replays them from a seed.

pub mod checkpoint;
pub mod cluster;
pub mod error;
pub mod event_time;
pub mod graph;
pub mod harness;
pub mod metrics;
pub mod operator;
pub mod record;
pub mod runtime;
pub mod secret;
pub mod sink;
pub mod source;
pub mod state;
pub mod time;

pub use error::{Blame, Context, Error, ErrorKind, Result};
pub use secret::{Redaction, Secret};
