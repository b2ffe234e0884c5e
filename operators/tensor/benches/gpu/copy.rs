//! `tensor_copy_gpu`: the rate of pinned copies while products run, against the bare copy.

use thalweg_tensor::Result;

use crate::{Bench, line};

const AIM: f64 = 0.8;

pub fn run(bench: &Bench) -> Result<()> {
    let probe = &bench.probe;
    for (what, bare, beside) in [
        ("to the device", probe.upload_bytes, probe.upload_bytes_under_compute),
        ("from the device", probe.download_bytes, probe.download_bytes_under_compute),
    ] {
        let value = format!("{:.1} of {:.1} GB/s", beside / 1e9, bare / 1e9);
        line("tensor_copy_gpu", what, value, beside / bare, AIM);
    }
    Ok(())
}
