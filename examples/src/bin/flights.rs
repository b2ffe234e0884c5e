//! Runs the flights job over the shipped file, in this process: no Kafka, nothing to configure.
//! Prints the alerts as JSON; everything else goes to files below `flights-out`.

use thalweg::prelude::*;
use thalweg_examples::job::{flights, flights_job};

fn main() -> Result<()> {
    let env = Environment::new();
    let found = flights_job(env.source(flights()).uid("flights"));
    found.alerts.sink(PrintSink::new()).uid("print");
    found.hours.sink(FileSink::json("flights-out/hours")).uid("hours");
    found.incomplete.sink(FileSink::csv("flights-out/incomplete")).uid("without-departure");
    found.late.sink(FileSink::csv("flights-out/late")).uid("late");
    Job::new("flights").parallelism(2).run(&env).map(drop)
}
