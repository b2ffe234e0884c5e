//! A job of two inputs of which one ends and the other is mostly idle: a history in files, and
//! readings that go on behind it, few and far between. Nobody's end and nobody's silence makes
//! the other's rows late.

use std::sync::Arc;

use thalweg::engine::cluster::{FaultCounts, SeededOrder, SimulatedJob};
use thalweg::prelude::*;

use crate::over_seeds;
use crate::readings::{Kind, OUT_OF_ORDER, Outputs, STEP, drawn, generator, job, rows_of};

const SEEDS: u64 = 60;
/// Rows of a file of the history, at most.
const HISTORY_ROWS: usize = 150;
/// A live row comes each 5 ms, and after 2 ms without one its split is idle.
const LIVE_ROWS_PER_SECOND: u64 = 200;
const IDLE_AFTER: Micros = 2 * MILLI;

fn run(seed: u64, counts: &Arc<FaultCounts>) -> std::result::Result<(), String> {
    let (mut order, local) = (SeededOrder::new(seed ^ 0x2b), tempfile::tempdir().unwrap());
    let directory = local.path().join("history");
    std::fs::create_dir(&directory).unwrap();
    let mut rows = Vec::new();
    for file in 0..1 + order.below(4) {
        let count = order.below(HISTORY_ROWS);
        let of_file = drawn(&mut order, 0, count);
        Kind::JsonLines.write(&directory, file, &of_file);
        rows.extend(of_file);
    }
    // All behind the history, so that nothing of them is late whatever is read first.
    let first = HISTORY_ROWS as Micros * STEP + OUT_OF_ORDER;
    let live = generator(first, 1 + order.below(40) as u64, order.next_u64());
    rows.extend(rows_of(Arc::new(live.clone())));
    let live = live.rows_per_second(LIVE_ROWS_PER_SECOND);
    let outputs = Outputs::default();
    let graph = |_: &mut SeededOrder| {
        let (env, strategy) = (Environment::new(), WatermarkStrategy::bounded_out_of_order(OUT_OF_ORDER));
        let history = env.source(Kind::JsonLines.source(&directory)).watermarks("at", strategy.clone());
        let live = env.source(live.clone()).watermarks("at", strategy.idle_after(IDLE_AFTER));
        job(&history.uid("history").union(&[&live.uid("live")]).uid("readings"), &outputs);
        env.build()
    };
    let simulated = SimulatedJob {
        name: "two-inputs",
        graph: &graph,
        interval: 3 * MILLI,
        steps: 1_200,
        faults_per_thousand: 60,
        local: local.path(),
        counts,
    };
    simulated.run(seed).map_err(|error| error.to_string())?;
    outputs.compare(&rows)
}

#[test]
fn neither_the_end_of_one_input_nor_the_silence_of_the_other_makes_a_row_late() {
    over_seeds(SEEDS, "neither_the_end", run);
}
