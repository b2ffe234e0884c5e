//! Every job under `examples/jobs` runs as it is and gives what it should.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn run(job: &str, out: &Path) -> Output {
    let path = examples().join("jobs").join(format!("{job}.yaml"));
    let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["run", path.to_str().unwrap()])
        .env("OUT", out)
        .env_remove("THALWEG_LOG")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{job}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn lines(text: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(text).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The rows of all files of a directory, in no order.
fn file_rows(directory: &Path) -> Vec<Value> {
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            rows.extend(lines(&std::fs::read(path).unwrap()));
        }
    }
    rows
}

fn flights() -> Vec<BTreeMap<String, String>> {
    let packed = std::fs::read(examples().join("data/flights-2013-01.csv.zst")).unwrap();
    let text = String::from_utf8(zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let row = |line: &str| {
        header.iter().zip(line.split(',')).map(|(k, v)| (k.to_string(), v.to_string())).collect()
    };
    lines.map(row).collect()
}

#[test]
fn numbers_prints_the_large_ones() {
    let out = tempfile::tempdir().unwrap();
    let rows = lines(&run("numbers", out.path()).stdout);
    assert!(rows.len() > 5 && rows.len() < 60, "{}", rows.len());
    for row in &rows {
        assert!(row["thousands"].as_f64().unwrap() > 0.490, "{row}");
        assert!(row["user"].as_str().unwrap().starts_with("USER-"), "{row}");
    }
}

#[test]
fn two_regions_are_united() {
    let out = tempfile::tempdir().unwrap();
    let printed = run("two_regions", out.path()).stdout;
    let ids: Vec<u64> = String::from_utf8_lossy(&printed)
        .lines()
        .map(|line| line.split_once("> ").unwrap().1)
        .map(|json| serde_json::from_str::<Value>(json).unwrap())
        .inspect(|row| assert!(row["tokens"].as_i64().unwrap() > 995, "{row}"))
        .map(|row| row["id"].as_u64().unwrap())
        .collect();
    assert!(ids.iter().any(|id| *id < 20_000) && ids.iter().any(|id| *id >= 1_000_000), "{ids:?}");
}

#[test]
fn late_flights_are_those_of_a_plain_loop() {
    let out = tempfile::tempdir().unwrap();
    let mut found: Vec<(String, i64, String)> = lines(&run("late_flights", out.path()).stdout)
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_string();
            (text("carrier"), row["flight"].as_i64().unwrap(), text("route"))
        })
        .collect();
    let mut expected: Vec<_> = flights()
        .iter()
        .filter(|flight| flight["dep_delay"].parse::<i64>().is_ok_and(|delay| delay > 300))
        .map(|flight| {
            let route = format!("{}-{}", flight["origin"], flight["dest"]);
            (flight["carrier"].clone(), flight["flight"].parse().unwrap(), route)
        })
        .collect();
    found.sort();
    expected.sort();
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}

#[test]
fn running_totals_end_at_the_sums_of_all_rows() {
    let out = tempfile::tempdir().unwrap();
    let mut last: BTreeMap<u64, (i64, i64)> = BTreeMap::new();
    for row in lines(&run("running_totals", out.path()).stdout) {
        let now = (row["completions"].as_i64().unwrap(), row["tokens"].as_i64().unwrap());
        let before = last.insert(row["user"].as_u64().unwrap(), now);
        assert!(before.is_none_or(|before| before.0 < now.0), "{row}");
    }
    assert_eq!(last.len(), 20);
    assert_eq!(last.values().map(|(completions, _)| completions).sum::<i64>(), 50_000);
}

#[test]
fn token_buckets_are_as_wide_as_they_say() {
    let out = tempfile::tempdir().unwrap();
    let mut last: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for row in lines(&run("token_buckets", out.path()).stdout) {
        let number = |column: &str| row[column].as_i64().unwrap();
        last.insert(number("bucket"), (number("completions"), number("tokens")));
    }
    assert_eq!(last.values().map(|(completions, _)| completions).sum::<i64>(), 50_000);
    // 1 to 50, 51 to 200, 201 to 500: a boundary belongs to the bucket below it.
    let shares = [(0, 50, 1..=50), (1, 150, 51..=200), (2, 300, 201..=500)];
    assert_eq!(last.len(), shares.len());
    for (bucket, of_500, sizes) in shares {
        let (completions, tokens) = last[&bucket];
        assert!((completions - of_500 * 100).abs() < 1_000, "{bucket}: {completions}");
        let (least, most) = (sizes.start() * completions, sizes.end() * completions);
        assert!(least < tokens && tokens < most, "{bucket}: {tokens} in {completions}");
        let mean = (sizes.start() + sizes.end()) as f64 / 2.0;
        assert!((tokens as f64 / completions as f64 - mean).abs() < mean / 20.0, "{bucket}: {tokens}");
    }
}

#[test]
fn users_per_minute_counts_every_row_once() {
    let out = tempfile::tempdir().unwrap();
    run("users_per_minute", out.path());
    let rows = file_rows(&out.path().join("users_per_minute/out"));
    assert_eq!(rows.iter().map(|row| row["completions"].as_i64().unwrap()).sum::<i64>(), 200_000);
    let mut keys: Vec<_> =
        rows.iter().map(|row| (row["user"].to_string(), row["window_start"].to_string())).collect();
    let count = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), count, "a window came twice");
}

#[test]
fn hourly_flights_are_those_of_a_plain_loop() {
    let out = tempfile::tempdir().unwrap();
    run("hourly_flights", out.path());
    let directory = out.path().join("hourly_flights");
    let mut expected: BTreeMap<(String, String), (i64, i64, i64)> = BTreeMap::new();
    for flight in flights().iter().filter(|flight| flight["dep_time"] != "NA") {
        let delay: i64 = flight["dep_delay"].parse().unwrap();
        let key = (flight["carrier"].clone(), flight["time_hour"].clone());
        let (count, sum, greatest) = expected.entry(key).or_insert((0, 0, i64::MIN));
        *count += 1;
        *sum += delay;
        *greatest = delay.max(*greatest);
    }
    let rows = file_rows(&directory.join("out"));
    assert_eq!(rows.len(), expected.len());
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap().to_string();
        let (count, sum, greatest) = expected[&(text("carrier"), text("window_start"))];
        assert_eq!(row["flights"].as_i64(), Some(count), "{row}");
        // serde_json reads floats to the last digit but one.
        let mean = row["mean_delay"].as_f64().unwrap();
        assert!((mean - sum as f64 / count as f64).abs() < 1e-9, "{row}");
        assert_eq!(row["greatest_delay"].as_i64(), Some(greatest), "{row}");
    }
    let cancelled = std::fs::read_dir(directory.join("not_departed")).unwrap();
    let files = cancelled.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let rows: usize = files.map(|path| std::fs::read_to_string(path).unwrap().lines().count() - 1).sum();
    assert_eq!(rows, 521);
    // Run again: the job is done already, and gives nothing twice.
    run("hourly_flights", out.path());
    assert_eq!(file_rows(&directory.join("out")).len(), expected.len());
}
