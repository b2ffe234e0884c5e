//! NVRTC compiles every kernel that the generator emits for every case of the suite, and for what
//! `matrix` has beyond it, to machine code: no GPU and no driver is needed. `dev/nvrtc fetch` fetches
//! the compiler.

#![allow(clippy::panic, reason = "fails the test")]

mod compiler;
mod matrix;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use compiler::Compiler;
use thalweg_tensor::cuda::{self, Kernel};
use thalweg_tensor::{Backend, Error, Graph, Limits, Plan, ReferenceMatrix, Result, Weights};

use crate::{cases, graphs, protocol, random_graphs};

/// Kernels that are compiled at once, so that the text that they share is read once.
const TOGETHER: usize = 16;
/// Random graphs; the shim takes more.
const SEEDS: u64 = 40;

/// Keeps the kernels of every graph that it is to compile, and refuses to run it.
#[derive(Default)]
struct Collector(Mutex<BTreeMap<String, Kernel>>);

impl Collector {
    fn take(&self, graph: &Graph) -> Result<()> {
        let kernels = cuda::lower(graph)?.kernels;
        let mut all = self.0.lock().expect("nobody panics with it");
        all.extend(kernels.into_iter().map(|kernel| (kernel.name.clone(), kernel)));
        Ok(())
    }
}

impl Backend for Collector {
    fn device(&self) -> String {
        "none".to_owned()
    }

    fn compile(
        &self,
        graph: &Graph,
        _weights: &Weights,
        _references: &[Arc<ReferenceMatrix>],
        _limits: &Limits,
    ) -> Result<Box<dyn Plan>> {
        self.take(graph).expect("every graph of the suite is lowered");
        Err(Error::Device { device: self.device(), reason: "only collects".to_owned() })
    }
}

/// Every kernel of the test matrix and of so many random graphs, each once.
pub fn kernels(seeds: u64) -> Vec<Kernel> {
    let collector = Collector::default();
    // What they report is that nothing runs.
    let reports = [
        cases::run_ops(&collector),
        graphs::run_graphs(&collector),
        protocol::run_protocol(&collector),
        random_graphs::run_random(&collector, seeds),
    ];
    assert!(reports.iter().all(|report| !report.failures.is_empty()));
    matrix::graphs().iter().for_each(|graph| collector.take(graph).expect("lowers"));
    let kernels = collector.0.into_inner().expect("nobody panicked with it");
    let mut kernels: Vec<Kernel> = kernels.into_values().collect();
    kernels.sort_by_key(Kernel::library);
    kernels
}

#[test]
fn nvrtc_compiles_every_kernel_for_sm_90() {
    let kernels = kernels(SEEDS);
    // Only kernels of one library together: each must stand without the others.
    let parts = kernels.chunk_by(|left, right| left.library() == right.library());
    let parts: Vec<&[Kernel]> = parts.flat_map(|part| part.chunks(TOGETHER)).collect();
    let (compiler, next) = (Compiler::load(), AtomicUsize::new(0));
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    compile(&compiler, part);
                }
            });
        }
    });
    println!("{} kernels", kernels.len());
    assert!(kernels.len() > 500, "only {} kernels", kernels.len());
}

fn compile(compiler: &Compiler, kernels: &[Kernel]) {
    let source = cuda::kernel::source(kernels);
    match compiler.compile(&source) {
        Ok(machine_code) => {
            for kernel in kernels {
                let name = kernel.name.as_bytes();
                let is_there = machine_code.windows(name.len()).any(|window| window == name);
                assert!(is_there, "{} is not in the machine code", kernel.name);
            }
        }
        Err(log) => panic!("{source}\n{log}"),
    }
}

#[test]
fn nvrtc_refuses_a_kernel_that_is_wrong() {
    let log =
        Compiler::load().compile("extern \"C\" __global__ void k(int* p) { *p = missing; }").unwrap_err();
    assert!(log.contains("missing"), "{log}");
}
