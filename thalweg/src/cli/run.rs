//! The commands.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use thalweg_engine::metrics::Registry;

use crate::config::ProcessEnvironment;
use crate::job::{LoadedJob, explain, load};

use super::arguments::{Arguments, Command, RunArguments};
use super::metrics_server::MetricsServer;
use super::{Exit, logging, prism};

/// The program: reads the arguments, does what they say, answers with an exit code.
pub fn main() -> ExitCode {
    // Clap prints usage mistakes itself and exits with 2, as documented.
    let arguments = Arguments::parse();
    if let Err(message) = logging::start(arguments.log_format, arguments.log.as_deref()) {
        eprintln!("error: {message}");
        return ExitCode::from(Exit::Mistaken.code());
    }
    let exit = match arguments.command {
        Command::Run(run_arguments) => run(&run_arguments),
        Command::Check { job } => check(&job),
        Command::Explain { job } => with_job(&job, |job| {
            print!("{}", explain(&job));
            Exit::Done
        }),
        Command::Prism { config, metrics_addr } => prism::prism(&config, metrics_addr),
    };
    ExitCode::from(exit.code())
}

fn with_job(path: &Path, then: impl FnOnce(LoadedJob) -> Exit) -> Exit {
    match load(path, &ProcessEnvironment) {
        Ok(job) => then(job),
        Err(mistakes) => {
            eprintln!("{mistakes}");
            Exit::Mistaken
        }
    }
}

fn check(path: &Path) -> Exit {
    with_job(path, |job| {
        println!("{}: no mistakes", job.spec.file);
        Exit::Done
    })
}

fn run(arguments: &RunArguments) -> Exit {
    with_job(&arguments.job, |mut job| {
        if let Some(parallelism) = arguments.parallelism {
            if parallelism > job.spec.settings.max_parallelism {
                let limit = job.spec.settings.max_parallelism;
                eprintln!("error: --parallelism {parallelism} exceeds the job's max_parallelism, which is {limit}");
                return Exit::Mistaken;
            }
            job.spec.settings.parallelism = parallelism;
        }
        let registry = Registry::default();
        let server = arguments.metrics_addr.map(|address| MetricsServer::start(address, registry.clone()));
        let _server = match server.transpose() {
            Ok(server) => {
                if let Some(server) = &server {
                    tracing::info!(address = %server.address(), "metrics are served at /metrics");
                }
                server
            }
            Err(message) => {
                eprintln!("error: {message}");
                return Exit::Mistaken;
            }
        };
        run_job(job, &registry)
    })
}

fn run_job(job: LoadedJob, registry: &Registry) -> Exit {
    let _ = (job, registry);
    eprintln!("error: running is not there yet");
    Exit::Failed
}
