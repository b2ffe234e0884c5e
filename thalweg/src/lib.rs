//! The face of Thalweg: everything that a program needs to build a job (`use
//! thalweg::prelude::*`), job files, and the command line.
//!
//! This crate knows all the others and decides nothing that they could: it reads configuration,
//! wires what they offer, and reports. What it knows of the process (arguments, signals, exit
//! codes) stays in [`cli`].

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "cli")]
pub mod job;
pub mod prelude;
pub mod run;
mod state_directory;
pub mod testing;

pub use thalweg_connectors as connectors;
pub use thalweg_engine as engine;
pub use thalweg_engine::{record, state};
pub use thalweg_operators as operators;

/// The README's program, so that it is one.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
