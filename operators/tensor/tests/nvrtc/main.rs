//! NVRTC compiles every kernel that the generator emits for every op, element and kind of shape to
//! machine code: no GPU and no driver is needed. `dev/nvrtc fetch` fetches the compiler.

mod compiler;
mod matrix;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use compiler::Compiler;
use thalweg_tensor::cuda::{self, Kernel};

/// Kernels that are compiled at once, so that the text that they share is read once.
const TOGETHER: usize = 16;

#[test]
fn every_kernel_compiles_for_sm_90() {
    let mut kernels: BTreeMap<String, Kernel> = BTreeMap::new();
    for graph in matrix::graphs() {
        let program = cuda::lower(&graph).expect("lowers");
        kernels.extend(program.kernels.into_iter().map(|kernel| (kernel.name.clone(), kernel)));
    }
    let kernels: Vec<Kernel> = kernels.into_values().collect();
    let parts: Vec<&[Kernel]> = kernels.chunks(TOGETHER).collect();
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
fn a_kernel_that_is_wrong_does_not_compile() {
    let log =
        Compiler::load().compile("extern \"C\" __global__ void k(int* p) { *p = missing; }").unwrap_err();
    assert!(log.contains("missing"), "{log}");
}
