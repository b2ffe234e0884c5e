//! A job stays within the memory that its user gave it, as the operating system counts it. Each
//! runs in a process of its own, with the stock binary and RocksDB.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "memory/gateway.rs"]
mod gateway;
#[path = "memory/long_texts.rs"]
mod long_texts;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What a limit may be passed by: the allocator's and RocksDB's rounding.
const SLACK_PERCENT: u64 = 15;
/// A debug build has so much more of its text resident than an optimised one, whose text is in the
/// plan.
const DEBUG_TEXT_BYTES: u64 = if cfg!(debug_assertions) { 40 << 20 } else { 0 };

/// The most that was ever resident, in bytes, of a process that still runs.
fn resident_max(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

struct Ended {
    summary: String,
    resident_max: u64,
}

fn run(directory: &Path, job: &str) -> Ended {
    std::fs::write(directory.join("job.yaml"), job).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["run", "job.yaml"])
        .current_dir(directory)
        .env_remove("THALWEG_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = 0;
    while child.try_wait().unwrap().is_none() {
        seen = seen.max(resident_max(child.id()).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let summary = said.lines().last().unwrap().to_string();
    // The job's own last word, read when everything was over: no peak falls between two looks.
    let own = summary.split("at most ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let own = own.parse::<u64>().unwrap() << 20;
    assert!(seen > 0, "nothing was seen");
    Ended { summary, resident_max: own.max(seen) }
}

/// Every row opens a window of its own; none fires before the last watermark, which fires all.
const MILLION: &str = "
job: million
memory: MEMORY
checkpoint: {interval: 2s, store: file:checkpoints}
sources:
  rows:
    kind: generator
    rows: 1_000_000
    columns:
      key: sequence
      at: {time: {start: 2024-01-31T00:00:00Z, step: 60ms}}
    event_time: {column: at, out_of_order: 24h}
steps:
  windows:
    kind: window
    input: rows
    key_by: key
    window: {tumbling: 1h}
    aggregates: {rows: count(), latest: max(at)}
sinks:
  out: {kind: blackhole, input: windows}
";

#[test]
fn one_watermark_that_fires_a_million_windows_stays_within_the_memory_limit() {
    for limit_mebibytes in [128_u64, 256] {
        let directory = tempfile::tempdir().unwrap();
        let job = MILLION.replace("MEMORY", &format!("{limit_mebibytes}MiB"));
        let ended = run(directory.path(), &job);
        assert!(ended.summary.contains("1000000 rows read, 1000000 rows written"), "{}", ended.summary);
        let bound = (limit_mebibytes << 20) * (100 + SLACK_PERCENT) / 100 + DEBUG_TEXT_BYTES;
        let most = ended.resident_max;
        println!("{limit_mebibytes} MiB given, {} MiB at most", most >> 20);
        assert!(most <= bound, "{} MiB resident with {limit_mebibytes} MiB given", most >> 20);
    }
}
