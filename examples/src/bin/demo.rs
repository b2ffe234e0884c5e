//! `demo [--real]`: the flights job over two Kafka clusters, through an outage and a `kill -9`.
//! Exit code 0 when every result arrived exactly once, 1 otherwise.

use std::path::PathBuf;
use std::process::ExitCode;

use thalweg_examples::demo::{ChildOptions, run_child, run_parent};

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::ERROR).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => run_parent(false),
        ["--real"] => run_parent(true),
        ["job", topology, prism, store, state, rows_per_second] => {
            let options = ChildOptions {
                topology: PathBuf::from(topology),
                prism: (*prism).to_string(),
                store: (*store).to_string(),
                state: PathBuf::from(state),
                rows_per_second: rows_per_second.parse().unwrap_or(u32::MAX),
            };
            run_child(&options).map(|()| true)
        }
        _ => {
            eprintln!("usage: demo [--real]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
