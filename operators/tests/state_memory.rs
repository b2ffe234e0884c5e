//! H8: a keyed operator's state stays within what the plan gives it, whatever the length of keys and
//! values, as the operating system counts it. Each case runs in a process of its own, with RocksDB,
//! checkpoints, and the allocator that the binary has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringViewBuilder, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use thalweg_engine::checkpoint::ObjectStoreStorage;
use thalweg_engine::harness::{HarnessInput, OperatorHarness};
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::state::{MemoryPlan, MemoryRequest, RocksBackend, RocksConfig};
use thalweg_operators::aggregate::AggregateSpec;
use thalweg_operators::keyed_aggregate::KeyedAggregate;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Names the case that a child process runs.
const CASE: &str = "THALWEG_STATE_MEMORY_CASE";
const TEXT_BYTES: usize = 4096;
const BATCH_ROWS: u64 = 1024;
const ROWS: u64 = 32 * BATCH_ROWS;
const CHECKPOINT_ROWS: u64 = 8 * BATCH_ROWS;
/// What a plan may be passed by.
const SLACK_PERCENT: u64 = 15;
/// Batches on their way through the harness, and code that is read while it runs.
const HARNESS_BYTES: u64 = 24 << 20;

/// A line of this process's status in bytes.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// 4 KiB that no other row has.
fn text(row: u64) -> String {
    let mut bits = row;
    let random = (0..TEXT_BYTES).map(|_| {
        bits = bits.wrapping_add(row).wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        char::from(b'a' + (bits >> 60) as u8)
    });
    random.collect()
}

fn batch(schema: &Arc<Schema>, first: u64) -> RecordBatch {
    let mut texts = StringViewBuilder::new();
    (first..first + BATCH_ROWS).for_each(|row| texts.append_value(text(row)));
    let ids: ArrayRef = Arc::new(UInt64Array::from_iter_values(first..first + BATCH_ROWS));
    RecordBatch::try_new(schema.clone(), vec![ids, Arc::new(texts.finish())]).unwrap()
}

/// Runs a job's keyed operator over rows of 4 KiB, several times its budget, and looks at the most
/// that was ever resident.
fn run_in_this_process(key: &str, aggregate: AggregateSpec) {
    let request = MemoryRequest { limit_bytes: 128 << 20, keyed_instances: 1, ..MemoryRequest::default() };
    let plan = MemoryPlan::divide(request).unwrap();
    let state = plan.cache_bytes_per_instance + plan.block_cache_bytes + plan.write_buffer_bytes;
    assert!(state * 2 < ROWS * TEXT_BYTES as u64, "the rows are more than the budget");
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    std::fs::create_dir_all(&store).unwrap();
    let config = RocksConfig {
        block_cache_bytes: plan.block_cache_bytes as usize,
        write_buffer_bytes: plan.write_buffer_bytes as usize,
        instance_bytes: Some(plan.cache_bytes_per_instance as usize),
        ..RocksConfig::new(directory.path().join("state"))
    };
    let fields = [("id", DataType::UInt64), ("text", DataType::Utf8View)];
    let schema = Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, false)).to_vec()));
    let input = HarnessInput::new(EdgeSchema::new(schema.clone())).keyed(&[key]).unwrap();
    let factory = KeyedAggregate::new(input.key(), [aggregate.alias("out")]);
    let mut harness = OperatorHarness::builder(factory, vec![input])
        .backend(Arc::new(RocksBackend::new(config).unwrap()))
        .storage(Arc::new(ObjectStoreStorage::directory(&store, Duration::from_secs(60)).unwrap()))
        .open()
        .unwrap();
    let before = status("VmRSS:");
    for first in (0..ROWS).step_by(BATCH_ROWS as usize) {
        harness.push_batch(0, batch(&schema, first)).unwrap();
        harness.take_batches(0);
        if first % CHECKPOINT_ROWS == 0 {
            harness.snapshot().unwrap();
        }
    }
    let grown = status("VmHWM:").saturating_sub(before);
    let bound = state * (100 + SLACK_PERCENT) / 100 + HARNESS_BYTES;
    println!("{} MiB given, {} MiB at most", state >> 20, grown >> 20);
    assert!(grown <= bound, "{} MiB resident with {} MiB given", grown >> 20, state >> 20);
}

/// Runs a case in a child process, for memory's high-water mark is the process's.
fn run(name: &str, key: &str, aggregate: AggregateSpec) {
    if std::env::var(CASE).is_ok_and(|case| case == name) {
        return run_in_this_process(key, aggregate);
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CASE, name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}");
    assert!(said.contains("MiB at most"), "it ran: {said}");
}

#[test]
fn h8_states_of_4_kib_stay_within_the_plan() {
    run("h8_states_of_4_kib_stay_within_the_plan", "id", AggregateSpec::max("text"));
}

#[test]
fn h8_keys_of_4_kib_stay_within_the_plan() {
    run("h8_keys_of_4_kib_stay_within_the_plan", "text", AggregateSpec::count());
}
