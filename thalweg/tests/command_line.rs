//! The binary: exit codes, what goes where, signals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

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

struct Running {
    child: std::process::Child,
    log: std::thread::JoinHandle<String>,
    address: String,
}

/// Starts the endless job and waits until its metrics are served.
fn start_endless(directory: &Path) -> Running {
    std::fs::write(directory.join("job.yaml"), ENDLESS).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["run", "job.yaml", "--metrics-addr", "127.0.0.1:0", "--log-format", "json"])
        .current_dir(directory)
        .env_remove("THALWEG_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    let address = loop {
        let line = log.next().expect("the job ended before it served metrics").unwrap();
        seen.push_str(&line);
        seen.push('\n');
        if let Ok(entry) = serde_json::from_str::<serde_json::Value>(&line)
            && let Some(address) = entry["address"].as_str()
        {
            break address.to_string();
        }
    };
    let log = std::thread::spawn(move || {
        for line in log.map_while(Result::ok) {
            seen.push_str(&line);
            seen.push('\n');
        }
        seen
    });
    Running { child, log, address }
}

impl Running {
    fn metric(&self, name: &str) -> i64 {
        let mut connection = std::net::TcpStream::connect(&self.address).unwrap();
        write!(connection, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let series = answer.lines().filter(|line| line.starts_with(&format!("thalweg_{name}{{")));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
    }

    /// Waits for a second checkpoint, so that there is something to go on from.
    fn wait_for_checkpoints(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.metric("checkpoints_completed_total") < 2 {
            assert!(Instant::now() < deadline, "no checkpoint within a minute");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: the child is ours and has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        (status.code(), self.log.join().unwrap())
    }
}

#[test]
fn a_signal_takes_a_last_checkpoint_and_the_next_run_goes_on_without_a_gap() {
    let directory = tempfile::tempdir().unwrap();
    for (signal, code) in [(libc::SIGTERM, 143), (libc::SIGINT, 130)] {
        let running = start_endless(directory.path());
        running.wait_for_checkpoints();
        running.signal(signal);
        let (exit, log) = running.end();
        assert_eq!(exit, Some(code), "{log}");
        assert!(log.contains("stopped after a last checkpoint"), "{log}");
    }
    let mut ids: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(directory.path().join("out")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = std::fs::read_to_string(path).unwrap();
            let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            ids.extend(rows.map(|row| row["id"].as_u64().unwrap()));
        }
    }
    ids.sort_unstable();
    assert!(ids.len() > 100, "{}", ids.len());
    assert!(
        ids.iter().enumerate().all(|(index, id)| index as u64 == *id),
        "gaps or copies in {} ids",
        ids.len()
    );
}
