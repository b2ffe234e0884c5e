//! A changed job file on the store of the old one (H7), and a job that has finished.

use std::path::Path;

use super::running::rows_of;
use super::{text, thalweg};

const JOB: &str = "
job: changed
checkpoint: {store: file:checkpoints}
sources:
  events:
    kind: file
    path: events.json
    format: json
    schema: {user: string, team: string, at: timestamp}
    event_time: {column: at, out_of_order: 0s}
steps:
  windows: {kind: window, input: events, key_by: user, window: {tumbling: 1h}, aggregates: {rows: count()}}
  totals: {kind: aggregate, input: events, key_by: user, aggregates: {rows: count()}}
sinks:
  per_hour: {kind: file, input: windows, path: out, format: json}
  nowhere: {kind: blackhole, input: totals}
";

const EVENTS: &str = r#"{"user":"ada","team":"a","at":"2024-01-31T00:10:00Z"}
{"user":"bob","team":"a","at":"2024-01-31T00:20:00Z"}
{"user":"ada","team":"b","at":"2024-01-31T01:10:00Z"}
"#;

/// Writes the file and the events, runs `thalweg COMMAND job.yaml ARGUMENTS`; the exit code and what
/// was said on standard output and error.
fn command(directory: &Path, job: &str, command: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let path = directory.join("job.yaml");
    std::fs::write(&path, job).unwrap();
    for events in ["events.json", "others.json"] {
        std::fs::write(directory.join(events), EVENTS).unwrap();
    }
    let output = thalweg(&[&[command, path.to_str().unwrap()], arguments].concat());
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(directory: &Path, job: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let (code, _, said) = command(directory, job, "run", arguments);
    (code, said)
}

/// A directory whose store has the checkpoint of the job, run to its end.
fn after_first() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let (code, said) = run(directory.path(), JOB, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(rows_of(&directory.path().join("out")).len(), 3);
    directory
}

fn renamed() -> String {
    JOB.replace("totals", "per_user")
}

#[test]
fn h7_a_changed_job_is_refused_with_2_and_a_text_that_names_what_and_says_what_to_do() {
    let cases = [
        ("a renamed step", renamed(), "gone: totals", "say `uid_was: totals`"),
        (
            "a renamed source",
            JOB.replace("events:", "clicks:").replace("input: events", "input: clicks"),
            "gone: events",
            "--allow-dropped-state events",
        ),
        (
            "another path",
            JOB.replace("path: events.json", "path: others.json"),
            "changed: events",
            "others.json",
        ),
        (
            "another offset",
            JOB.replace("{tumbling: 1h}", "{tumbling: 1h, offset: 30m}"),
            "offset was 0s, is 30m",
            "--start-empty windows",
        ),
        (
            "another key",
            JOB.replace("input: events, key_by: user, window", "input: events, key_by: team, window"),
            "changed: windows",
            "key was user string, is team string",
        ),
        ("key groups", format!("max_parallelism: 64\n{JOB}"), "max_parallelism is 64", "was made with 128"),
    ];
    let directory = after_first();
    let log = directory.path().join("checkpoints/changed/log");
    let entries = std::fs::read_dir(&log).unwrap().count();
    for (what, job, named, advice) in cases {
        let (code, said) = run(directory.path(), &job, &[]);
        assert_eq!(code, Some(2), "{what}: {said}");
        assert!(said.contains("nothing was run") && said.contains(named), "{what}: {said}");
        assert!(said.contains(advice), "{what}: {said}");
        assert_eq!(rows_of(&directory.path().join("out")).len(), 3, "{what}");
        assert_eq!(std::fs::read_dir(&log).unwrap().count(), entries, "{what}: it claimed the job");
    }
}

#[test]
fn h7_what_is_refused_runs_when_it_is_allowed_by_name_or_renamed_by_an_alias() {
    let directory = after_first();
    let alias = renamed().replace("per_user: {", "per_user: {uid_was: totals, ");
    let (code, said) = run(directory.path(), &alias, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("was totals"), "{said}");
    // The alias may stay, and may go.
    for job in [alias, renamed()] {
        assert_eq!(run(directory.path(), &job, &[]).0, Some(0));
    }
    let (code, said) = run(directory.path(), JOB, &["--allow-dropped-state", "per_user"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("starts empty") && said.contains("its state is dropped, as allowed"), "{said}");
    let moved = JOB.replace("{tumbling: 1h}", "{tumbling: 1h, offset: 30m}");
    assert_eq!(run(directory.path(), &moved, &["--start-empty", "windows"]).0, Some(0));
    assert_eq!(run(directory.path(), &moved, &[]).0, Some(0));
}

#[test]
fn h7_an_alias_that_is_somebodys_name_is_a_mistake_with_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let job = JOB.replace("totals: {", "totals: {uid_was: windows, ");
    let (code, _, said) = command(directory.path(), &job, "check", &[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("job.yaml:13:"), "{said}");
    assert!(said.contains("`windows` is a name in this job"), "{said}");
}

#[test]
fn h7_explain_prints_the_table_before_anything_runs_and_says_by_its_code_what_a_run_would() {
    let directory = after_first();
    let log = directory.path().join("checkpoints/changed/log");
    let entries = std::fs::read_dir(&log).unwrap().count();
    let (code, table, _) = command(directory.path(), JOB, "explain", &["--restore"]);
    assert_eq!(code, Some(0));
    assert!(table.starts_with("job changed, checkpoint 1-"), "{table}");
    assert!(table.contains(", finished: 4 kept\n"), "{table}");
    let store = directory.path().join("checkpoints");
    let store = store.to_str().unwrap();
    for store in [store.to_string(), format!("file://{store}")] {
        let (code, table, _) = command(directory.path(), &renamed(), "explain", &["--restore", &store]);
        assert_eq!(code, Some(2), "{table}");
        for part in [
            "kept     windows",
            "new      per_user",
            "gone     totals",
            "a run is refused:",
            "uid_was: totals",
        ] {
            assert!(table.contains(part), "{part}: {table}");
        }
        let allowed = ["--restore", &store, "--allow-dropped-state", "totals"];
        let (code, table, _) = command(directory.path(), &renamed(), "explain", &allowed);
        assert_eq!(code, Some(0), "{table}");
    }
    let missing = directory.path().join("missing");
    let (code, _, said) =
        command(directory.path(), JOB, "explain", &["--restore", missing.to_str().unwrap()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("is no directory") && !missing.exists(), "{said}");
    assert_eq!(std::fs::read_dir(&log).unwrap().count(), entries, "a look claims nothing");
}

#[test]
fn a_finished_job_that_is_started_again_says_so_and_how_to_start_over() {
    let directory = after_first();
    let (code, said) = run(directory.path(), JOB, &[]);
    assert_eq!(code, Some(0));
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("job changed: had finished already, at checkpoint 1-"), "{said}");
    assert!(last.ends_with("--start-over runs it from the start again"), "{said}");
    let (code, said) = run(directory.path(), JOB, &["--start-over"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("starts over, as asked for") && said.contains("3 rows read"), "{said}");
    assert_eq!(rows_of(&directory.path().join("out")).len(), 6);
}
