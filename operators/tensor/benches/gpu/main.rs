//! `make bench-gpu`: what the CUDA backend reaches on this machine's device, beside what the device
//! can do. A small program that can be copied; it needs the driver, NVRTC and cuBLASLt, and no file.
//!
//! `gpu [name ..]` runs some of `tensor_copy_gpu`, `tensor_topk_gpu` and `tensor_minilm_gpu`;
//! `THALWEG_DEVICE` numbers the device, `THALWEG_MODEL` is the directory of a sentence encoder.
//! Without a device it fails.

mod copy;
mod minilm;
mod roofline;
mod topk;

use std::process::ExitCode;
use std::sync::Arc;

use thalweg_tensor::cuda::device::{CudaBackend, Probe};
use thalweg_tensor::{Backend, Error, Result};

/// What every benchmark is given.
struct Bench {
    backend: Arc<CudaBackend>,
    probe: Probe,
}

const ALL: [(&str, fn(&Bench) -> Result<()>); 3] =
    [("tensor_copy_gpu", copy::run), ("tensor_topk_gpu", topk::run), ("tensor_minilm_gpu", minilm::run)];

fn main() -> ExitCode {
    // `cargo bench` adds its own.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nothing more was measured: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(wanted: &[String]) -> Result<()> {
    if let Some(name) = wanted.iter().find(|name| ALL.iter().all(|(known, _)| known != *name)) {
        let known = ALL.map(|(name, _)| name).join(", ");
        return Err(Error::Device { device: "bench".into(), reason: format!("no `{name}` among {known}") });
    }
    let backend = CudaBackend::shared(ordinal())?;
    println!("device {}: {:?}", backend.device(), backend.facts());
    let probe = backend.probe()?;
    println!(
        "measured: memory {:.0} GB/s, f16 products {:.0} Tflop/s",
        probe.memory_bytes / 1e9,
        probe.matmul_operations / 1e12
    );
    let bench = Bench { backend, probe };
    for (name, run) in ALL {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            run(&bench)?;
        }
    }
    Ok(())
}

fn ordinal() -> usize {
    std::env::var("THALWEG_DEVICE").ok().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// One line of the result.
fn line(name: &str, what: &str, value: String, share: f64, aim: f64) {
    let verdict = if share >= aim { "reached" } else { "NOT reached" };
    println!(
        "{name:<18} {what:<22} {value:>24}   {:>5.1} %  (aim {:.0} %: {verdict})",
        share * 100.0,
        aim * 100.0
    );
}
