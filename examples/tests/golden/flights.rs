//! The flights job, written in Rust: expressions, typed records, a process function.

use std::sync::Arc;

use thalweg::prelude::*;
use thalweg_examples::job::{flights, flights_job};

use crate::paced::Pace;
use crate::ways::{Golden, Site, three_ways};

struct Flights;

impl Golden for Flights {
    fn start(&self, site: &Site, parallelism: u32, pace: &Pace) -> RunningJob {
        let env = Environment::new();
        let found =
            flights_job(env.source_dyn(Arc::new(pace.hold("flights", Arc::new(flights())))).uid("flights"));
        let outputs = [("hours", found.hours), ("alerts", found.alerts), ("incomplete", found.incomplete)];
        for (name, stream) in outputs {
            stream.sink(site.collected(name).exactly_once_sink()).uid(&format!("to-{name}"));
        }
        site.job("flights", parallelism).start(&env).unwrap()
    }
}

#[test]
fn the_flights_job_gives_the_same_three_ways() {
    three_ways(&Flights);
}
