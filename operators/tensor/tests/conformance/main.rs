//! One suite for every backend: each op alone, whole graphs, random graphs, and what a plan owes,
//! held against an oracle in `f64` (see `tolerance` for how far a backend may be off).
//!
//! `THALWEG_SEED=<seed> cargo test -p thalweg-tensor --test conformance random` replays a random
//! graph.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod compare;
mod far_cluster;
mod generate;
mod graphs;
mod models;
#[path = "../nvrtc/mod.rs"]
mod nvrtc;
#[cfg(feature = "test-gpu")]
mod on_device;
mod oracle;
mod oracle_backend;
mod protocol;
mod random_graphs;
#[path = "../shim/mod.rs"]
mod shim;
mod suite;
mod tolerance;
mod value;
mod wrong;

use thalweg_tensor::{Backend, CpuBackend};

/// Random graphs of a run.
const SEEDS: u64 = 200;

/// The whole suite over a backend.
fn conforms(backend: &dyn Backend) {
    let label = backend.device();
    cases::run_ops(backend).require(&format!("{label}, ops"));
    graphs::run_graphs(backend).require(&format!("{label}, graphs"));
    protocol::run_protocol(backend).require(&format!("{label}, plans"));
    random_graphs::run_random(backend, SEEDS).require(&format!("{label}, random graphs"));
    models::run_random_model(backend).require(&format!("{label}, a model"));
}

/// Real weights, where `make fetch-models` has put them; for backends that are fast enough.
fn agrees_on_minilm(backend: &dyn Backend) {
    match models::minilm() {
        Some(directory) => models::run_model(backend, &directory, "minilm.safetensors")
            .require(&format!("{}, MiniLM", backend.device())),
        None => println!("not run: no MiniLM here, see `make fetch-models`"),
    }
}

/// Held to itself, with every value rounded to its element on the way: the slack covers that.
#[test]
fn the_oracle_conforms() {
    conforms(&oracle_backend::OracleBackend(oracle_backend::Fault::None));
}

/// With each instruction set that this machine has.
#[test]
fn the_cpu_conforms() {
    for backend in CpuBackend::all() {
        conforms(&backend);
    }
}

#[test]
fn the_cpu_agrees_on_minilm() {
    agrees_on_minilm(&CpuBackend::new());
}

/// What a device would run, kernel by kernel. In two, so that one compiles while the other computes.
#[test]
fn the_cuda_kernels_conform_under_the_shim() {
    cases::run_ops(&shim::ShimBackend).require("cuda kernels, ops");
}

#[test]
fn the_cuda_programs_conform_under_the_shim() {
    let backend = &shim::ShimBackend;
    graphs::run_graphs(backend).require("cuda kernels, graphs");
    protocol::run_protocol(backend).require("cuda kernels, plans");
    far_cluster::run_far_cluster(backend).require("cuda kernels, a far cluster");
    random_graphs::run_random(backend, SEEDS).require("cuda kernels, random graphs");
    models::run_random_model(backend).require("cuda kernels, a model");
}
