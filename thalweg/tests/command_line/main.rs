//! The binary: exit codes, what goes where, signals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod changed;
mod running;
mod store_away;
mod stored_models;

use std::path::PathBuf;
use std::process::{Command, Output};

use running::{rows_of, start};

fn thalweg(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thalweg")).args(arguments).env_remove("THALWEG_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn broken(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "broken", name].iter().collect();
    path.display().to_string()
}

#[test]
fn mistakes_in_usage_and_configuration_exit_with_2() {
    for arguments in [vec![], vec!["rnu"], vec!["run"], vec!["run", "a.yaml", "--metrics-addr", "nowhere"]] {
        let output = thalweg(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    for command in ["run", "check", "explain"] {
        let output = thalweg(&[command, &broken("unknown_keys.yaml")]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(
            text(&output.stderr).contains("unknown_keys.yaml:2:1: paralelism: unknown key; did you mean")
        );
        assert_eq!(text(&output.stdout), "");
        let output = thalweg(&[command, "/does/not/exist.yaml"]);
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(text(&output.stderr).contains("cannot read the job file"));
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let output = thalweg(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("143  SIGTERM ended the job after a last checkpoint"));
}

#[test]
fn a_log_filter_that_cannot_be_read_is_a_usage_mistake() {
    let output = thalweg(&["--log", "info,x=loud", "check", "a.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("log filter"), "{}", text(&output.stderr));
}

/// A job without an end: numbers in order, into files, a checkpoint every 200 ms.
const ENDLESS: &str = "
job: endless
checkpoint: {interval: 200ms, store: file:checkpoints}
sources:
  numbers: {kind: generator, rows_per_second: 20000, columns: {id: sequence}}
sinks:
  files: {kind: file, input: numbers, path: out, format: json}
";

#[test]
fn a_signal_takes_a_last_checkpoint_and_the_next_run_goes_on_without_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let running = start(directory.path(), ENDLESS, &[]);
        // Two, so that there is something to go on from.
        running.wait_for("checkpoints_completed_total", 2);
        running.signal(signal);
        let (exit, log) = running.end();
        assert_eq!(exit, Some(code), "{log}");
        assert!(log.contains("stopped after a last checkpoint"), "{log}");
    }
    let mut ids: Vec<u64> =
        rows_of(&directory.path().join("out")).iter().map(|row| row["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    assert!(ids.len() > 100, "{}", ids.len());
    assert!(
        ids.iter().enumerate().all(|(index, id)| index as u64 == *id),
        "gaps or copies in {} ids",
        ids.len()
    );
}

/// A job whose checkpoints never complete: nobody acknowledges what it writes.
const STUCK: &str = "
job: stuck
checkpoint: {interval: 100ms, store: file:checkpoints}
sources:
  numbers: {kind: generator, rows_per_second: 1000, columns: {id: sequence}}
sinks:
  nowhere:
    kind: kafka
    input: numbers
    topic: out
    bootstrap_servers: 127.0.0.1:1
    format: json
";

#[test]
fn a_second_signal_leaves_at_once_though_the_last_checkpoint_cannot_complete() {
    for signals in [[libc::SIGINT, libc::SIGINT], [libc::SIGTERM, libc::SIGTERM]] {
        let directory = tempfile::tempdir().unwrap();
        let mut running = start(directory.path(), STUCK, &[]);
        running.wait_for("rows_in_total", 1);
        running.signal(signals[0]);
        running.wait_for("stop_signals_total", 1);
        running.wait_for_log("waiting for checkpoint");
        assert!(running.runs(), "it left without its last checkpoint");
        running.signal(signals[1]);
        let (exit, log) = running.end();
        assert_eq!(exit, Some(3), "{log}");
        assert!(log.contains("leaving at once"), "{log}");
        // What it waited for, and for how long, was said at once.
        assert!(log.contains("not acknowledged by numbers[0]#1") && log.contains("it is given up"), "{log}");
    }
}

#[test]
fn a_bounded_job_ends_by_itself_with_a_summary() {
    let directory = tempfile::tempdir().unwrap();
    let job = "job: bounded\nsources:\n  numbers: {kind: generator, rows: 5000, columns: {id: sequence}}\n\
               steps:\n  few: {kind: filter, input: numbers, where: id < 10}\n\
               sinks:\n  out: {kind: print, input: few}\n  rest: {kind: blackhole, input: numbers}\n";
    let path = directory.path().join("job.yaml");
    std::fs::write(&path, job).unwrap();
    let output = thalweg(&["run", path.to_str().unwrap()]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(text(&output.stdout).lines().count(), 10);
    let summary = said.lines().last().unwrap();
    assert!(summary.starts_with("job bounded: done in "), "{summary}");
    let counts = "; 5000 rows read, 5010 rows written, 0 restarts, at most ";
    assert!(summary.contains(counts) && summary.ends_with(" MiB of memory"), "{summary}");
}

#[test]
fn parallelism_on_the_command_line_wins_up_to_the_number_of_key_groups() {
    let directory = tempfile::tempdir().unwrap();
    let job = "job: wide\nmax_parallelism: 4\n\
               sources:\n  numbers: {kind: generator, rows: 10, columns: {id: sequence}}\n\
               sinks:\n  out: {kind: print, input: numbers}\n";
    let path = directory.path().join("job.yaml");
    std::fs::write(&path, job).unwrap();
    let output = thalweg(&["run", path.to_str().unwrap(), "--parallelism", "4"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).lines().all(|line| line.contains("> {")), "{}", text(&output.stdout));
    let output = thalweg(&["run", path.to_str().unwrap(), "--parallelism", "5"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("--parallelism 5 exceeds `max_parallelism`, which is 4"), "{said}");
}

#[test]
fn a_secret_is_said_by_no_command_at_any_log_level() {
    let directory = tempfile::tempdir().unwrap();
    let job = "
job: secretive
checkpoint: {store: az://container/prefix, sas: '${HUSH}'}
sources:
  numbers: {kind: generator, rows: 10, columns: {id: sequence}}
sinks:
  out:
    kind: kafka
    input: numbers
    topic: out
    bootstrap_servers: 127.0.0.1:1
    format: json
    settings:
      security.protocol: SASL_PLAINTEXT
      sasl.mechanism: PLAIN
      sasl.username: me
      sasl.password: ${HUSH}
";
    let path = directory.path().join("job.yaml");
    std::fs::write(&path, job).unwrap();
    for (command, code) in [("check", 0), ("explain", 0), ("run", 1)] {
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["--log", "trace", command, path.to_str().unwrap()])
            .env("HUSH", "sig=hunter2")
            .env("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1/devstoreaccount1")
            .output()
            .unwrap();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{command}: {said}");
        assert!(!said.contains("hunter2"), "{command} says a secret");
    }
}
