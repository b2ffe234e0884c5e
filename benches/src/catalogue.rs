//! All benchmarks: what each is called, what runs it, and which rows its samples become.

use thalweg_engine::Result;

use crate::results::Row;
use crate::sample::{Role, Sample};
use crate::settings::Settings;
use crate::{
    checkpoint_pause, exchange, kafka_read, kafka_tumble, keyed_count, latency, memory, passthrough,
    tensor_minilm, tensor_normalise, tensor_operator, tensor_topk,
};

/// Rows of a throughput; most values have this unit.
pub const PER_CORE_SECOND: &str = "events/core-second";

/// A benchmark.
pub struct Bench {
    /// As in `ONLY=name`.
    pub name: &'static str,
    /// Whether a broker with a filled topic must be there.
    pub needs_kafka: bool,
    /// Whether there is a baseline to run.
    pub has_baseline: bool,
    /// At most so many runs of each side: for those that take minutes.
    pub runs_max: usize,
    /// Runs one side in this process.
    pub one: fn(Role, &Settings) -> Result<Sample>,
    /// From the medians of both sides to rows of the report.
    pub rows: fn(&str, &Sample, &Sample) -> Vec<Row>,
}

const fn bench(
    name: &'static str,
    one: fn(Role, &Settings) -> Result<Sample>,
    rows: fn(&str, &Sample, &Sample) -> Vec<Row>,
) -> Bench {
    Bench { name, needs_kafka: false, has_baseline: true, runs_max: usize::MAX, one, rows }
}

const fn kafka(bench: Bench) -> Bench {
    Bench { needs_kafka: true, ..bench }
}

const fn long(bench: Bench, runs_max: usize) -> Bench {
    Bench { runs_max, ..bench }
}

const fn alone(bench: Bench) -> Bench {
    Bench { has_baseline: false, ..bench }
}

/// In the order in which they are run.
pub static BENCHES: &[Bench] = &[
    bench("engine_passthrough", passthrough::one, passthrough::rows),
    bench("exchange_hash", exchange::one, exchange::rows),
    bench("keyed_count_100k", keyed_count::one_100k, keyed_count::rows_100k),
    bench("keyed_count_1m", keyed_count::one_1m, keyed_count::rows_1m),
    long(bench("keyed_count_20m", keyed_count::one_20m, keyed_count::rows_20m), 1),
    long(alone(bench("checkpoint_pause", checkpoint_pause::one, checkpoint_pause::rows)), 1),
    kafka(bench("kafka_read_raw", kafka_read::one_raw, kafka_read::rows_raw)),
    kafka(bench("kafka_read_json", kafka_read::one_json, kafka_read::rows_json)),
    kafka(bench("kafka_tumble", kafka_tumble::one, kafka_tumble::rows)),
    long(bench("tensor_minilm_cpu", tensor_minilm::one, tensor_minilm::rows), 1),
    bench("tensor_operator_overhead", tensor_operator::one, tensor_operator::rows),
    bench("tensor_topk_cpu", tensor_topk::one, tensor_topk::rows),
    bench("tensor_normalise_cpu", tensor_normalise::one, tensor_normalise::rows),
    long(kafka(bench("latency", latency::one, latency::rows)), 1),
    long(alone(bench("memory_long_values", memory::one_values, memory::rows)), 1),
    long(alone(bench("memory_long_keys", memory::one_keys, memory::rows)), 1),
    long(alone(bench("memory_kafka_away", memory::one_kafka_away, memory::rows)), 1),
    long(alone(bench("memory_prism_away", memory::one_prism_away, memory::rows)), 1),
    long(alone(bench("memory_parquet", memory::one_parquet, memory::rows)), 1),
    long(alone(bench("memory_small_files", memory::one_small_files, memory::rows)), 1),
];

/// The one row of most benchmarks: events per core-second of both sides.
pub fn per_core_second(
    name: &str,
    subject: &Sample,
    baseline: &Sample,
    is: &'static str,
    aim: &'static str,
) -> Row {
    Row {
        name: name.to_string(),
        value: subject.get("rows_per_core_second"),
        unit: PER_CORE_SECOND,
        baseline: is,
        baseline_value: baseline.get("rows_per_core_second"),
        aim,
    }
}
