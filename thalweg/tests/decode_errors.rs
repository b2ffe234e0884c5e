//! Records that cannot be decoded, through job files: the job fails, they are dropped and counted,
//! or they go to a dead-letter output.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Two good records and two bad ones of each format.
const INPUTS: [(&str, &str, &str); 2] = [
    ("json", "in.jsonl", "{\"id\": 1}\n{\"id\": \"one\"}\nnonsense\n{\"id\": 2}\n"),
    ("csv", "in.csv", "id\n1\none\n5,6\n2\n"),
];

fn run(directory: &Path, format: &str, input: &str, rest: &str) -> Output {
    let job = format!(
        "job: decoding\nsources:\n  rows:\n    kind: file\n    path: {input}\n    format: {format}\n    \
         schema: {{id: int64 not null}}\n{rest}"
    );
    std::fs::write(directory.join("job.yaml"), job).unwrap();
    Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["run", "job.yaml"])
        .current_dir(directory)
        .env_remove("THALWEG_LOG")
        .output()
        .unwrap()
}

fn each_format(check: impl Fn(&Path, &str, &str)) {
    for (format, file, content) in INPUTS {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(file), content).unwrap();
        check(directory.path(), format, file);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn printed(output: &Output) -> Vec<Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(rows: &[Value]) -> Vec<i64> {
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

const PRINT: &str = "sinks:\n  out: {kind: print, input: rows}\n";

#[test]
fn by_default_the_job_fails_and_names_file_line_and_reason() {
    each_format(|directory, format, file| {
        for mode in ["", "    on_decode_error: fail\n"] {
            let output = run(directory, format, file, &format!("{mode}{PRINT}"));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{format}: {said}");
            let line = if format == "csv" { 3 } else { 2 };
            assert!(said.contains(&format!("{file}:{line}: cannot decode a record: ")), "{format}: {said}");
            assert!(said.contains("column \"id\": expected a 64-bit integer"), "{format}: {said}");
            assert!(said.contains("0 restarts"), "a retry cannot help: {said}");
        }
    });
}

#[test]
fn drop_leaves_bad_records_out_and_counts_them() {
    each_format(|directory, format, file| {
        let output = run(directory, format, file, &format!("    on_decode_error: drop\n{PRINT}"));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{format}: {said}");
        assert_eq!(ids(&printed(&output)), [1, 2], "{format}");
        assert!(said.contains("2 rows read, 2 records not decoded, 2 rows written"), "{format}: {said}");
    });
}

#[test]
fn dead_letters_say_where_they_come_from_and_why() {
    each_format(|directory, format, file| {
        let rest = "    on_decode_error: dead_letter\nsinks:\n  out: {kind: print, input: rows}\n  \
                    dead: {kind: print, prefix: DEAD, input: rows.dead_letters}\n";
        let output = run(directory, format, file, rest);
        assert_eq!(output.status.code(), Some(0), "{format}: {}", text(&output.stderr));
        let all = text(&output.stdout);
        let (dead, good): (Vec<_>, Vec<_>) = all.lines().partition(|line| line.starts_with("DEAD "));
        let rows = |lines: &[&str]| -> Vec<Value> {
            lines.iter().map(|line| serde_json::from_str(line.trim_start_matches("DEAD ")).unwrap()).collect()
        };
        assert_eq!(ids(&rows(&good)), [1, 2], "{format}");
        let letters = rows(&dead);
        let first = if format == "csv" { 3 } else { 2 };
        let lines: Vec<_> = letters.iter().map(|letter| letter["offset"].as_i64().unwrap()).collect();
        assert_eq!(lines, [first, first + 1], "{format}: {letters:?}");
        for letter in &letters {
            assert!(letter["topic"].as_str().unwrap().ends_with(file), "{letter}");
            assert_eq!(letter["partition"].as_i64(), Some(0), "{letter}");
            assert!(!letter["reason"].as_str().unwrap().is_empty(), "{letter}");
            assert!(!letter["payload"].is_null(), "{letter}");
        }
    });
}
