//! The benchmarks: each runs its subject (a Thalweg job) and its baseline (a bare loop that does the
//! same work without an engine) in turn, each in a process of its own, and prints medians.
//!
//! `thalweg-benches [NAME,NAME] [--runs N] [--seconds N]`; `thalweg-benches one NAME ROLE` is what a
//! child process does. This crate knows all the others and nobody knows it.

mod catalogue;
mod checkpoint_pause;
mod exchange;
mod job;
mod kafka_client;
mod kafka_read;
mod kafka_records;
mod kafka_tumble;
mod kafka_world;
mod keyed_count;
mod latency;
mod memory;
mod passthrough;
mod peers;
mod pump;
mod results;
mod sample;
mod settings;
mod tensor_case;
mod tensor_minilm;
mod tensor_normalise;
mod tensor_operator;
mod tensor_topk;
mod turns;
mod usage;

use std::process::ExitCode;

use thalweg_engine::{Error, Result};

use crate::catalogue::BENCHES;
use crate::sample::Role;
use crate::settings::Settings;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.first().map(String::as_str) {
        Some("one") => one(&arguments[1..]),
        _ => Settings::parse(&arguments).and_then(|(names, settings)| turns::run(&names, &settings)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thalweg-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one side of one benchmark in this process and prints its sample.
fn one(arguments: &[String]) -> Result<()> {
    let [name, role, ..] = arguments else {
        return Err(Error::user("one NAME subject|baseline"));
    };
    let bench = BENCHES
        .iter()
        .find(|bench| bench.name == name)
        .ok_or_else(|| Error::user(format!("there is no benchmark {name:?}")))?;
    let sample = (bench.one)(Role::parse(role)?, &Settings::from_environment()?)?;
    println!("{}", sample.to_line());
    Ok(())
}
