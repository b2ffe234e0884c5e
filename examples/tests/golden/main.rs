//! Golden jobs, three ways: straight; with several checkpoints in the middle; left at once and
//! restored at another parallelism. The same rows each time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod files;
mod flights;
mod paced;
mod similar;
mod ways;
