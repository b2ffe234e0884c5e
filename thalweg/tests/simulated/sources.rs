//! One job over each kind of source.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use thalweg::engine::cluster::{FaultCounts, SeededOrder, SimulatedJob};
use thalweg::engine::source::Source;
use thalweg::prelude::*;

use crate::over_seeds;
use crate::readings::{Kind, OUT_OF_ORDER, Outputs, Reading, drawn, generator, job, rows_of};

const SEEDS: u64 = 60;
/// A process crashes within so many steps, and a task fails within as many.
const STEPS: usize = 700;
/// Those of a job on files: a reader takes a file in few steps.
const FILE_STEPS: usize = 250;

/// A source of some kind, and its rows.
type Drawn = (Arc<dyn Source>, Vec<Reading>);

fn files(order: &mut SeededOrder, directory: &Path) -> Drawn {
    let kind = [Kind::JsonLines, Kind::Csv, Kind::CompressedCsv][order.below(3)];
    let mut rows = Vec::new();
    for file in 0..1 + order.below(12) {
        let count = order.below(60);
        let of_file = drawn(order, 0, count);
        kind.write(directory, file, &of_file);
        rows.extend(of_file);
    }
    (Arc::new(kind.source(directory)), rows)
}

fn in_memory(order: &mut SeededOrder, _: &Path) -> Drawn {
    let count = order.below(500);
    let rows = drawn(order, 0, count);
    let source = VecSource::of(&rows).unwrap().dealt_to(1 + order.below(5)).unwrap();
    (Arc::new(source.batch_rows(1 + order.below(8))), rows)
}

fn generated(order: &mut SeededOrder, _: &Path) -> Drawn {
    let source =
        generator(0, order.below(500) as u64, order.next_u64()).batch_rows(1 + order.below(8) as u64);
    let source = if order.below(2) == 0 { source.splits(1 + order.below(4) as u32) } else { source };
    let source = if order.below(2) == 0 { source.rows_per_second(10_000) } else { source };
    let rows = rows_of(Arc::new(source.clone()));
    (Arc::new(source), rows)
}

fn run(
    seed: u64,
    steps: usize,
    source: impl Fn(&mut SeededOrder, &Path) -> Drawn,
    counts: &Arc<FaultCounts>,
) -> std::result::Result<(), String> {
    let local = tempfile::tempdir().unwrap();
    let directory = local.path().join("files");
    std::fs::create_dir(&directory).unwrap();
    let (source, rows) = source(&mut SeededOrder::new(seed ^ 0x50), &directory);
    let outputs = Outputs::default();
    let graph = |_: &mut SeededOrder| {
        let env = Environment::new();
        let strategy = WatermarkStrategy::bounded_out_of_order(OUT_OF_ORDER);
        job(&env.source_dyn(source.clone()).watermarks("at", strategy).uid("readings"), &outputs);
        env.build()
    };
    let simulated = SimulatedJob {
        name: "readings",
        graph: &graph,
        interval: 3 * MILLI,
        steps,
        faults_per_thousand: 60,
        local: local.path(),
        counts,
    };
    simulated.run(seed).map_err(|error| error.to_string())?;
    outputs.compare(&rows)
}

#[test]
fn files_are_read_once_whatever_befalls_process_store_and_discovery() {
    let test = "files_are_read_once";
    let counts = over_seeds(SEEDS, test, |seed, counts| run(seed, FILE_STEPS, files, counts));
    assert!(counts.looks.load(Ordering::Relaxed) > 20 || std::env::var("THALWEG_SEED").is_ok(), "{counts}");
}

#[test]
fn rows_in_memory_are_read_once_whatever_befalls_process_and_store() {
    over_seeds(SEEDS, "rows_in_memory", |seed, counts| run(seed, STEPS, in_memory, counts));
}

#[test]
fn generated_rows_are_read_once_whatever_befalls_process_and_store() {
    over_seeds(SEEDS, "generated_rows", |seed, counts| run(seed, STEPS, generated, counts));
}
