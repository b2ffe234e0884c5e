//! H8 for long texts: through a hash exchange into sinks that stand still, into files, out of many
//! small files.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{DEBUG_TEXT_BYTES, SLACK_PERCENT, resident_max, run};

/// The memory of each job.
const LIMIT_BYTES: u64 = 256 << 20;
/// Rows with a text of four KiB each: twice the limit and more.
const ROWS: usize = 150_000;
/// Nothing moves for so long where a sink stands still.
const STILL: Duration = Duration::from_secs(3);

/// Every row goes through a hash exchange, with its text; one in five leaves with another's.
const EXCHANGED: &str = include_str!("exchanged.yaml");

/// All rows go to one task.
const GATHERED: &str = "
job: texts
memory: 256MiB
parallelism: 2
checkpoint: {interval: 1s, store: file:checkpoints}
sources:
  rows:
    kind: generator
    rows: ROWS
    columns: {id: sequence, text: {text: {min_bytes: 4096, max_bytes: 4096}}}
sinks:
  out: {SINK, input: rows, parallelism: 1}
";

fn assert_within(most: u64, what: &str) {
    println!("{what}: {} MiB at most", most >> 20);
    let bound = LIMIT_BYTES * (100 + SLACK_PERCENT) / 100 + DEBUG_TEXT_BYTES;
    assert!(most <= bound, "{what}: {} MiB resident with {} MiB given", most >> 20, LIMIT_BYTES >> 20);
}

/// A process that is killed when it is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a job until it stands still. Answers the most that was resident and the rows that were read.
fn stand_still(job: &str) -> (u64, i64) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("job.yaml"), job).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["run", "job.yaml", "--metrics-addr", "127.0.0.1:0", "--log-format", "json"])
        .current_dir(directory.path())
        .env_remove("THALWEG_LOG")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut log = BufReader::new(child.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let address = log
        .by_ref()
        .find_map(|line| {
            let entry: serde_json::Value = serde_json::from_str(&line).ok()?;
            Some(entry["address"].as_str()?.to_string())
        })
        .expect("the job ended before it served metrics");
    let rest = std::thread::spawn(move || log.collect::<Vec<_>>().join("\n"));
    let (mut rows, mut since) = (0, Instant::now());
    let deadline = since + Duration::from_secs(120);
    while since.elapsed() < STILL || rows == 0 {
        assert!(Instant::now() < deadline, "it does not come to rest: {rows} rows");
        if let Some(ended) = child.0.try_wait().unwrap() {
            panic!("{ended}: {}", rest.join().unwrap());
        }
        let now = rows_read(&address);
        if now != rows {
            (rows, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    (resident_max(child.0.id()).unwrap(), rows)
}

/// Rows that the source has emitted.
fn rows_read(address: &str) -> i64 {
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    write!(connection, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let of_source =
        |line: &&str| line.starts_with("thalweg_rows_out_total{") && line.contains("uid=\"rows\"");
    answer.lines().filter(of_source).filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
}

fn before(sink: &str) {
    for (job, name) in [(EXCHANGED, "exchanged"), (GATHERED, "gathered")] {
        let key = if name == "exchanged" { "key" } else { "id" };
        let sink = sink.replace("KEY", key);
        let job = job.replace("SINK", &sink).replace("ROWS", &ROWS.to_string());
        let (most, rows) = stand_still(&job);
        assert!(rows > 5_000, "{name}, {sink}: {rows} rows");
        assert_within(most, &format!("{name} before {sink} after {rows} rows"));
    }
}

#[test]
fn h8_long_texts_before_a_kafka_sink_whose_broker_is_down() {
    before("kind: kafka, bootstrap_servers: '127.0.0.1:1', topic: t, format: json, key: KEY");
}

#[test]
fn h8_long_texts_before_a_prism_that_is_away() {
    before(
        "kind: prism, endpoint: 'http://127.0.0.1:1', topic: t, format: json, key: KEY, delivery: at_least_once",
    );
    before("kind: prism, endpoint: 'http://127.0.0.1:1', topic: t, format: json, key: KEY");
}

#[test]
fn h8_long_texts_into_parquet_files() {
    let directory = tempfile::tempdir().unwrap();
    let sink = "kind: file, path: out, format: parquet";
    let job = GATHERED.replace("SINK", sink).replace("ROWS", "100_000");
    let ended = run(directory.path(), &job);
    assert!(ended.summary.contains("100000 rows written"), "{}", ended.summary);
    assert_within(ended.resident_max, "parquet");
}

/// A text of four KiB for each key, or keyed by the text.
const STATE: &str = include_str!("state.yaml");

#[test]
fn h8_long_values_and_long_keys_in_the_state_of_a_job() {
    for (key, aggregate) in [("id", "max(text)"), ("text", "count()")] {
        let directory = tempfile::tempdir().unwrap();
        let ended = run(
            directory.path(),
            &STATE.replace("ROWS", "100_000").replace("KEY", key).replace("AGGREGATE", aggregate),
        );
        assert!(ended.summary.contains("100000 rows read"), "{}", ended.summary);
        assert_within(ended.resident_max, &format!("{aggregate} by {key}"));
    }
}

/// One row a file.
const SMALL_FILES: &str = include_str!("small_files.yaml");

fn write_small_files(directory: &Path, count: usize) {
    std::fs::create_dir(directory).unwrap();
    let text = "x".repeat(4_000);
    for n in 0..count {
        std::fs::write(directory.join(format!("{n}.jsonl")), format!("{{\"n\":{n},\"text\":\"{text}\"}}\n"))
            .unwrap();
    }
}

#[test]
fn h8_ten_thousand_small_files() {
    let directory = tempfile::tempdir().unwrap();
    write_small_files(&directory.path().join("in"), 10_000);
    let ended = run(directory.path(), SMALL_FILES);
    assert!(ended.summary.contains("10000 rows read, 10000 rows written"), "{}", ended.summary);
    assert_within(ended.resident_max, "10,000 small files");
}
