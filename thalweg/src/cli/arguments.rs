//! The arguments.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use thalweg_engine::checkpoint::AllowedChanges;

use super::exit::EXIT_CODES;

/// Stateful stream processing: runs jobs that are described in a file.
#[derive(Clone, Debug, Parser)]
#[command(name = "thalweg", version, about, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How logs are written, on standard error.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged: a level, or levels by module (`info,thalweg_engine=debug`). The default is
    /// the environment variable THALWEG_LOG, or `info` without what the Azure client says of each
    /// attempt.
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Runs a job until it ends, fails or is told to stop.
    #[command(after_help = EXIT_CODES)]
    Run(RunArguments),
    /// Says every mistake in a job file at once; touches nothing.
    Check {
        /// The job file.
        job: PathBuf,
    },
    /// Prints the graph of a job: chains, edges with their partitioners, uids, states, parallelism,
    /// memory.
    Explain(ExplainArguments),
    /// Runs the Prism gateway.
    Prism {
        /// The gateway's configuration.
        #[arg(long)]
        config: PathBuf,
        /// Serves the metrics at http://ADDRESS/metrics.
        #[arg(long, value_name = "ADDRESS")]
        metrics_addr: Option<SocketAddr>,
    },
}

/// How to run a job.
#[derive(Clone, Debug, Args)]
pub struct RunArguments {
    /// The job file.
    pub job: PathBuf,
    /// Serves the metrics at http://ADDRESS/metrics; port 0 takes a free one and logs it.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_addr: Option<SocketAddr>,
    /// Runs with this parallelism in place of the file's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32_768))]
    pub parallelism: Option<u32>,
    /// What may be lost.
    #[command(flatten)]
    pub changes: ChangeArguments,
}

/// What to explain.
#[derive(Clone, Debug, Args)]
pub struct ExplainArguments {
    /// The job file.
    pub job: PathBuf,
    /// Prints instead what a run would take over from its last checkpoint in this store, a directory
    /// or a URL (without one: in the job's own), and exits with 2 when a run would be refused.
    #[arg(long, value_name = "STORE", num_args = 0..=1)]
    pub restore: Option<Option<String>>,
    /// What may be lost.
    #[command(flatten)]
    pub changes: ChangeArguments,
}

/// How a job may differ from the one that its last checkpoint is of.
#[derive(Clone, Debug, Args)]
pub struct ChangeArguments {
    /// Drops the state of an operator that the job has no more; may be given several times.
    #[arg(long, value_name = "UID")]
    pub allow_dropped_state: Vec<String>,
    /// Starts an operator empty whose state has become another one; may be given several times.
    #[arg(long, value_name = "UID")]
    pub start_empty: Vec<String>,
    /// Passes over what is in the store: reads everything again, with empty state.
    #[arg(long)]
    pub start_over: bool,
}

impl ChangeArguments {
    /// For a job's settings.
    pub fn allowed(&self) -> AllowedChanges {
        AllowedChanges {
            dropped: self.allow_dropped_state.iter().cloned().collect(),
            start_empty: self.start_empty.iter().cloned().collect(),
            start_over: self.start_over,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_sound() {
        super::Arguments::command().debug_assert();
    }
}
