//! Finds packages that say nearly the same of themselves: `make demo-tensor`.
//!
//! `demo_tensor MODEL` runs `packages_job` and `examples/tensor/packages.yaml` over two embedded
//! Kafka clusters with the sentence encoder of a directory.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use thalweg_examples::similar::run_demo;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let Some(model) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: demo_tensor MODEL, a directory as `dev/minilm fetch` prints it");
        return ExitCode::from(2);
    };
    match run_demo(&model) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
