//! The child: runs the flights job from Kafka through Prism, and prints its progress.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thalweg::connectors::format::JsonEncoder;
use thalweg::connectors::kafka::{KafkaSource, OnOutage, Until};
use thalweg::connectors::prism::{PrismSink, PrismTarget};
use thalweg::engine::checkpoint::{StoreOptions, open};
use thalweg::engine::cluster::{JobConfig, Outcome, start};
use thalweg::engine::metrics::Registry;
use thalweg::engine::runtime::ChannelBounds;
use thalweg::engine::state::{RocksBackend, RocksConfig};
use thalweg::prelude::*;

use super::{ALERTS, CARRIER_HOURS, FLIGHTS, INCOMPLETE, LATE, progress};
use crate::job::{Flight, flights_job};

/// How often progress is printed.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// What the parent tells the child.
pub struct ChildOptions {
    /// The topology file.
    pub topology: PathBuf,
    /// The gateway's endpoint.
    pub prism: String,
    /// The checkpoint store's URL.
    pub store: String,
    /// Where local state goes; gone with the process.
    pub state: PathBuf,
    /// Rows that each task reads in a second.
    pub rows_per_second: u32,
}

/// Runs the job to its end.
///
/// # Errors
/// What the job failed with.
pub fn run_child(options: &ChildOptions) -> Result<()> {
    let env = Environment::new();
    let source = KafkaSource::federated(FLIGHTS, &options.topology)
        .format(Json::of::<Flight>())
        .until(Until::Latest)
        .on_outage(OnOutage::Hold)
        .rows_per_second(options.rows_per_second);
    let found = flights_job(env.source(source).uid("flights"));
    let outputs = [
        (CARRIER_HOURS, found.hours),
        (ALERTS, found.alerts),
        (INCOMPLETE, found.incomplete),
        (LATE, found.late),
    ];
    for (topic, stream) in outputs {
        let target = PrismTarget::Gateway(options.prism.clone());
        let sink = PrismSink::new(topic, target, || Ok(Box::new(JsonEncoder::new())));
        stream.sink(sink).uid(&format!("to-{topic}"));
    }
    let mut config = JobConfig::new("flights");
    config.parallelism = 2;
    config.coordinator.checkpoint_interval = 500 * MILLI;
    let storage = open(&options.store, &StoreOptions::from_environment())?;
    let backend = RocksBackend::new(RocksConfig::new(&options.state))?;
    let registry = Registry::default();
    let job =
        start(env.build()?, config, storage, Arc::new(backend), registry.clone(), ChannelBounds::default())?;
    let (mut before, mut printed) = ((0, 0), Instant::now());
    while !job.is_over() {
        std::thread::sleep(Duration::from_millis(50));
        if printed.elapsed() >= PROGRESS_EVERY || job.is_over() {
            println!("{}", progress::line(&registry, &mut before, printed.elapsed().as_secs_f64()));
            printed = Instant::now();
        }
    }
    match job.wait()?.outcome {
        Outcome::Completed => Ok(()),
        other => Err(Error::external(format!("the job ended with {other:?}"))),
    }
}
