//! What a device could do at best: by its maker's table where its name is known, else as measured.

use thalweg_tensor::cuda::device::Facts;

use crate::Bench;

/// The two sides of a roofline (Williams, Waterman, Patterson 2009), per second.
pub struct Roofline {
    pub memory_bytes: f64,
    pub operations: f64,
    pub source: &'static str,
}

/// Name, bytes per second, dense f16 operations per second; NVIDIA's data sheets.
const KNOWN: [(&str, f64, f64); 6] = [
    ("H200", 4.8e12, 989e12),
    ("H100 PCIe", 2.0e12, 756e12),
    ("H100 NVL", 3.9e12, 835e12),
    ("H100", 3.35e12, 989e12),
    ("A100-SXM4-80GB", 2.039e12, 312e12),
    ("L4", 0.3e12, 121e12),
];

impl Roofline {
    pub fn of(bench: &Bench) -> Roofline {
        let facts: &Facts = bench.backend.facts();
        match KNOWN.iter().find(|(name, ..)| facts.name.contains(name)) {
            Some((_, memory_bytes, operations)) => {
                Roofline { memory_bytes: *memory_bytes, operations: *operations, source: "data sheet" }
            }
            None => Roofline {
                memory_bytes: bench.probe.memory_bytes,
                operations: bench.probe.matmul_operations,
                source: "as measured",
            },
        }
    }

    /// The least seconds that so many bytes and operations take, and which side says so.
    pub fn seconds(&self, bytes: f64, operations: f64) -> (f64, Side) {
        let (memory, tensor) = (bytes / self.memory_bytes, operations / self.operations);
        if memory >= tensor { (memory, Side::Memory) } else { (tensor, Side::TensorCores) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Memory,
    TensorCores,
}
