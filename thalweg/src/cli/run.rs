//! The commands.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use thalweg_engine::Blame;
use thalweg_engine::cluster::{JobSummary, Outcome, StartedFrom};
use thalweg_engine::metrics::Registry;

use crate::config::{Masks, ProcessEnvironment};
use crate::job::{LoadedJob, explain, load_with, outlook, start};

use super::arguments::{Arguments, Command, ExplainArguments, RunArguments};
use super::counts::Counts;
use super::live_line::LiveLine;
use super::metrics_server::MetricsServer;
use super::resident::Resident;
use super::signals::SignalWatch;
use super::{Exit, logging, prism};

/// The program: reads the arguments, does what they say, answers with an exit code.
pub fn main() -> ExitCode {
    // Clap prints usage mistakes itself and exits with 2, as documented.
    let arguments = Arguments::parse();
    let masks = Masks::default();
    if let Err(message) = logging::start(arguments.log_format, arguments.log.as_deref(), &masks) {
        eprintln!("error: {message}");
        return ExitCode::from(Exit::Mistaken.code());
    }
    logging::mask_panics(&masks);
    let exit = match arguments.command {
        Command::Run(run_arguments) => run(&run_arguments, &masks),
        Command::Check { job } => check(&job, &masks),
        Command::Explain(explain_arguments) => explain_job(&explain_arguments, &masks),
        Command::Prism { config, metrics_addr } => prism::prism(&config, metrics_addr),
    };
    ExitCode::from(exit.code())
}

fn with_job(
    path: &Path,
    parallelism: Option<u32>,
    masks: &Masks,
    then: impl FnOnce(LoadedJob) -> Exit,
) -> Exit {
    match load_with(path, &ProcessEnvironment, parallelism, masks.clone()) {
        Ok(job) => then(job),
        Err(mistakes) => {
            eprintln!("{mistakes}");
            Exit::Mistaken
        }
    }
}

fn check(path: &Path, masks: &Masks) -> Exit {
    with_job(path, None, masks, |job| {
        println!("{}: no mistakes", job.spec.file);
        Exit::Done
    })
}

fn explain_job(arguments: &ExplainArguments, masks: &Masks) -> Exit {
    with_job(&arguments.job, None, masks, |mut job| {
        job.changes = arguments.changes.allowed();
        match &arguments.restore {
            Some(store) => explain_restore(&job, store.as_deref()),
            None => {
                print!("{}", explain(&job));
                Exit::Done
            }
        }
    })
}

/// Prints what a run would take over, and says by its code whether it would be refused.
fn explain_restore(job: &LoadedJob, store: Option<&str>) -> Exit {
    let name = &job.spec.settings.name;
    match outlook(job, store) {
        Ok(Some(carry_over)) => {
            print!("job {name}, {}", job.masks.apply(&carry_over.to_string()));
            carry_over.check().map_or(Exit::Mistaken, |()| Exit::Done)
        }
        Ok(None) => {
            println!("job {name}: the store holds no checkpoint of it; a run starts afresh");
            Exit::Done
        }
        Err(error) => {
            eprintln!("error: job {name}: {}", job.masks.apply(&error.to_string()));
            if error.blame() == Blame::User { Exit::Mistaken } else { Exit::Failed }
        }
    }
}

fn run(arguments: &RunArguments, masks: &Masks) -> Exit {
    with_job(&arguments.job, arguments.parallelism, masks, |mut job| {
        job.changes = arguments.changes.allowed();
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
    let name = job.spec.settings.name.clone();
    let sources: Vec<String> = job.spec.sources.iter().map(|source| source.name.clone()).collect();
    let sinks: Vec<String> = job.spec.sinks.iter().map(|sink| sink.name.clone()).collect();
    let masks = job.masks.clone();
    let failed = |error: &thalweg_engine::Error| {
        eprintln!("error: job {name}: {}", masks.apply(&error.to_string()));
        Exit::Failed
    };
    let handle = match start(job, registry.clone()) {
        Ok(handle) => handle,
        // Nothing was run: what the file says cannot be.
        Err(error) if error.blame() == Blame::User => {
            failed(&error);
            return Exit::Mistaken;
        }
        Err(error) => return failed(&error),
    };
    let inbox = handle.inbox();
    let group = registry.group(vec![("job", name.clone())]);
    let asked = group.counter("stop_signals_total", "Signals that asked the job to stop.");
    let stop = move || {
        asked.add(1);
        inbox.stop();
    };
    let signals = match SignalWatch::start(stop) {
        Ok(signals) => signals,
        Err(error) => {
            handle.abandon();
            eprintln!("error: cannot listen for signals: {error}");
            return Exit::Failed;
        }
    };
    tracing::info!(job = name, "running");
    let (metrics, counted) = (registry.clone(), (sources.clone(), sinks.clone()));
    let live = LiveLine::start(move || Counts::of(&metrics, &counted.0, &counted.1).to_string());
    if let Err(error) = &live {
        tracing::warn!(%error, "what the job counts is not shown while it runs");
    }
    let summary = handle.wait();
    drop(live);
    let summary = match summary {
        Ok(summary) => summary,
        Err(error) => return failed(&error),
    };
    let exit = match (&summary.outcome, signals.first()) {
        (Outcome::Completed, _) => Exit::Done,
        (Outcome::Stopped, Some(signal)) => Exit::Stopped(signal),
        (Outcome::Stopped, None) => Exit::Done,
        (Outcome::Abandoned, _) => Exit::Interrupted,
        // Nothing was run: what the file says does not go with its checkpoint.
        (Outcome::Refused { error }, _) => {
            eprintln!("error: job {name}: {}", masks.apply(error));
            return Exit::Mistaken;
        }
        (Outcome::Failed { error, .. } | Outcome::Fenced { error }, _) => {
            eprintln!("error: job {name}: {}", masks.apply(error));
            Exit::Failed
        }
        (Outcome::Stuck { error, .. }, _) => {
            eprintln!("error: job {name}: {}", masks.apply(error));
            Exit::Stuck
        }
    };
    let counts = Counts::of(registry, &sources, &sinks);
    eprintln!("{}", summary_text(&name, &summary, &counts, Resident::of_this_process()));
    exit
}

/// The last words, for people: how it ended and what it did.
fn summary_text(name: &str, summary: &JobSummary, counts: &Counts, resident: Option<Resident>) -> String {
    let how = match summary.outcome {
        Outcome::Completed => "done",
        Outcome::Stopped => "stopped after a last checkpoint",
        Outcome::Abandoned => "left at once",
        Outcome::Failed { .. } => "failed",
        Outcome::Fenced { .. } => "taken over by a newer run",
        Outcome::Refused { .. } => "refused",
        Outcome::Stuck { .. } => "ended without tasks that did not return",
    };
    if let (Outcome::Completed, Some(StartedFrom { checkpoint, is_finished: true }), 0) =
        (&summary.outcome, summary.started_from, counts.read)
    {
        return format!(
            "job {name}: had finished already, at checkpoint {checkpoint}, and there was nothing new to read; \
             --start-over runs it from the start again"
        );
    }
    let seconds = summary.elapsed.as_secs_f64();
    let restarts = summary.restarts;
    // What was counted before a restart went with the tasks that counted it.
    let since = if restarts > 0 { " since the last restart" } else { "" };
    let memory = resident.map_or_else(String::new, |resident| {
        format!(", at most {} MiB of memory", resident.most.div_ceil(1 << 20))
    });
    format!("job {name}: {how} in {seconds:.1} s; {counts}{since}, {restarts} restarts{memory}")
}
