//! The command line: arguments, logs, signals, the metrics' address, exit codes.
//!
//! This is the one place that knows the process: it reads arguments, prints, and turns an outcome
//! into an exit code. What it prints on standard output is for programs and people who asked for
//! it (`explain`, `print` sinks, summaries); everything else goes to standard error.

mod arguments;
mod counts;
mod exit;
mod live_line;
mod logging;
mod metrics_server;
mod prism;
mod resident;
mod run;
mod signals;

pub use arguments::{Arguments, Command};
pub use exit::Exit;
pub use run::main;
