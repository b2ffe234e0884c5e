//! Real processes, real brokers, real `kill -9`.

use std::path::Path;
use std::time::Duration;

use thalweg::engine::cluster::SeededOrder;
use thalweg_examples::demo::{KillAt, Script, run_script};

#[test]
fn the_flights_job_killed_at_five_random_points_on_real_kafka_delivers_every_result_once() {
    let seed = match std::env::var("THALWEG_SEED") {
        Ok(seed) => seed.parse().expect("THALWEG_SEED is a number"),
        Err(_) => u64::from(std::process::id()),
    };
    println!("seed {seed}");
    let mut order = SeededOrder::new(seed);
    let kills =
        (0..5).map(|_| KillAt::After(Duration::from_millis(600 + order.below(1_800) as u64))).collect();
    // Two readers: the 27,004 rows take longer than the 12 s within which the last kill comes.
    let script = Script { real: true, rows_per_second: 1_000, outage: false, kills };
    let report = run_script(Path::new(env!("CARGO_BIN_EXE_demo")), &script).unwrap();
    assert!(report.is_clean(), "seed {seed}: {:?}", report.verdict);
    assert_eq!(report.restarts, 5, "seed {seed}: the job ended before its kills");
}

#[test]
fn the_demo_survives_an_outage_and_a_kill_on_embedded_clusters() {
    let script = Script { real: false, rows_per_second: 2_000, outage: true, kills: vec![KillAt::Halfway] };
    let report = run_script(Path::new(env!("CARGO_BIN_EXE_demo")), &script).unwrap();
    assert!(report.is_clean(), "{:?}", report.verdict);
    assert_eq!((report.restarts, report.outages), (1, 1));
}
