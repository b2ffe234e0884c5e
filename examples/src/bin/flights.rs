//! The flights job over the shipped file, in this process: no Kafka, nothing to configure.
//! Prints the alerts, and how many results there are of each kind.

use std::process::ExitCode;
use std::sync::Arc;

use thalweg::connectors::print::PrintSink;
use thalweg::engine::checkpoint::MemoryStorage;
use thalweg::engine::cluster::{JobConfig, Outcome, start};
use thalweg::engine::metrics::Registry;
use thalweg::engine::runtime::ChannelBounds;
use thalweg::engine::state::MapBackend;
use thalweg::prelude::*;
use thalweg_examples::data::{load, shipped_file};
use thalweg_examples::job::{Flight, flights_job};

fn run() -> Result<()> {
    let read = |flight: thalweg_examples::data::Flight| {
        Ok(Flight {
            time_hour: Timestamp(flight.scheduled()? - flight.minute * MINUTE),
            carrier: flight.carrier,
            flight: flight.flight,
            tailnum: flight.tailnum,
            dep_delay: flight.dep_delay,
            minute: flight.minute,
        })
    };
    let flights = load(&shipped_file())?.into_iter().map(read).collect::<Result<Vec<_>>>()?;
    let (hours, incomplete, late) = (Collected::new(), Collected::new(), Collected::new());

    let env = Environment::new();
    let found = flights_job(env.source(VecSource::of(&flights)?.dealt_to(4)?).uid("flights"));
    found.alerts.sink(PrintSink::new()).uid("print");
    found.hours.sink(hours.exactly_once_sink()).uid("hours");
    found.incomplete.sink(incomplete.exactly_once_sink()).uid("without-departure");
    found.late.sink(late.exactly_once_sink()).uid("late");

    let mut config = JobConfig::new("flights");
    config.parallelism = 2;
    let storage = Arc::new(MemoryStorage::default());
    let backend = Arc::new(MapBackend::default());
    let job = start(env.build()?, config, storage, backend, Registry::default(), ChannelBounds::default())?;
    match job.wait()?.outcome {
        Outcome::Completed => {
            let counts = (hours.row_count(), incomplete.row_count(), late.row_count());
            println!("{} hours, {} flights without a departure, {} late rows", counts.0, counts.1, counts.2);
            Ok(())
        }
        other => Err(Error::external(format!("the job ended with {other:?}"))),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
