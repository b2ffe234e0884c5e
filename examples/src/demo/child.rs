//! The child: runs the flights job from Kafka through Prism, and prints its progress.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use thalweg::connectors::format::JsonEncoder;
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
    let job = Job::new("flights").parallelism(2).state_directory(&options.state);
    let job = job.checkpoints(&options.store).checkpoint_every(500 * MILLI).start(&env)?;
    let (mut before, mut printed) = ((0, 0), Instant::now());
    while !job.is_over() {
        std::thread::sleep(Duration::from_millis(50));
        if printed.elapsed() >= PROGRESS_EVERY || job.is_over() {
            println!("{}", progress::line(job.metrics(), &mut before, printed.elapsed().as_secs_f64()));
            printed = Instant::now();
        }
    }
    match job.wait()?.outcome {
        Outcome::Completed => Ok(()),
        other => Err(Error::external(format!("the job ended with {other:?}"))),
    }
}
