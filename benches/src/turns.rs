//! Runs subject and baseline in turn, each in a child process, so that memory, processor time and
//! caches are each side's own, and what the machine does meanwhile falls on both.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use thalweg_engine::{Error, Result};

use crate::catalogue::{BENCHES, Bench};
use crate::kafka_world::KafkaWorld;
use crate::results::{self, Row};
use crate::sample::{Role, Sample};
use crate::settings::Settings;

/// Runs the benchmarks of these names, or all, and reports.
///
/// # Errors
/// A user error for a name that is none; what fails a child. The others are run and reported first.
pub fn run(names: &[String], settings: &Settings) -> Result<()> {
    let known: BTreeSet<_> = BENCHES.iter().map(|bench| bench.name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name.as_str())) {
        let known: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        return Err(Error::user(format!(
            "there is no benchmark {unknown:?}; there are {}",
            known.join(", ")
        )));
    }
    let chosen =
        BENCHES.iter().filter(|bench| names.is_empty() || names.iter().any(|name| name == bench.name));
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    let mut world: Option<KafkaWorld> = None;
    for bench in chosen {
        let mut settings = settings.clone();
        if bench.needs_kafka {
            let world = match world.take() {
                Some(there) => world.insert(there),
                None => world.insert(KafkaWorld::start(settings.records)?),
            };
            settings.bootstrap = Some(world.bootstrap().to_string());
        }
        match take_turns(bench, &settings) {
            Ok(made) => {
                print!("{}", results::table(&made));
                rows.extend(made);
            }
            Err(error) => failures.push(format!("{}: {error}", bench.name)),
        }
        // What is measured so far is kept, whatever comes.
        results::write(&rows, &Path::new(env!("CARGO_MANIFEST_DIR")).join("out/results.json"))?;
    }
    println!("\n{}", results::table(&rows));
    if failures.is_empty() { Ok(()) } else { Err(Error::external(failures.join("\n"))) }
}

fn take_turns(bench: &Bench, settings: &Settings) -> Result<Vec<Row>> {
    let (mut subjects, mut baselines) = (Vec::new(), Vec::new());
    let runs = settings.runs.min(bench.runs_max);
    for run in 0..runs {
        if bench.has_baseline {
            baselines.push(child(bench, Role::Baseline, run, settings)?);
        }
        subjects.push(child(bench, Role::Subject, run, settings)?);
    }
    Ok((bench.rows)(bench.name, &Sample::median(&subjects), &Sample::median(&baselines)))
}

fn child(bench: &Bench, role: Role, run: usize, settings: &Settings) -> Result<Sample> {
    let what = || format!("{} {} run {}", bench.name, role.name(), run + 1);
    let failed = |error: std::io::Error| Error::external(format!("cannot run {}", what())).caused_by(error);
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(["one", bench.name, role.name()])
        .envs(settings.environment())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut sample = None;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(failed)?;
        match Sample::from_line(&line) {
            Some(found) => sample = Some(found),
            None => println!("{line}"),
        }
    }
    let status = child.wait().map_err(failed)?;
    let sample = sample.filter(|_| status.success());
    let sample = sample.ok_or_else(|| Error::external(format!("{} ended with {status}", what())))?;
    let numbers: Vec<_> = sample.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
    println!("  {}: {}", what(), numbers.join(", "));
    Ok(sample)
}
