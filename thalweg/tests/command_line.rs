//! The binary: exit codes, what goes where, signals.

use std::path::PathBuf;
use std::process::{Command, Output};

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
        assert!(text(&output.stderr).contains("unknown_keys.yaml:2:1: paralelism: unknown key; did you mean"));
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
