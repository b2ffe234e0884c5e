//! The CPU backend: the graph's meaning, as fast as the processor's vectors and caches allow.
//!
//! A plan is a `program` of steps. Each thread takes a chunk of rows, small enough for its second
//! cache, through all steps; so nothing is shared but weights, which are read only, and what is
//! made in between hardly touches memory. Weights are packed when the graph is compiled, once for
//! all plans of a process (`shared_programs`), products are tiles in registers (`tile`), what works
//! in place joins the step before it (`steps`), and everything is compiled for AVX-512, for AVX2 and
//! for any machine, chosen at run time (`isa`).
//!
//! Scratch is kept from batch to batch and bounded by [`Limits`]; the same batch makes the same
//! bits, whatever the number of threads, as long as memory does not force other cuts (`chunk`).

mod aligned;
mod attention;
mod chunk;
mod compile;
mod elements;
mod functions;
mod isa;
mod lanes;
mod matrix;
mod plan;
mod pool;
mod program;
mod quantise;
mod rows;
mod run;
mod shared_programs;
mod signatures;
mod step;
mod steps;
mod tile;
mod top_k;
mod view;
mod workers;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::{Backend, Error, Graph, Limits, Plan, ReferenceMatrix, Result, Weights};
use isa::Isa;

/// Computes on the threads that call it, and on as many more as a plan's limits say.
#[derive(Clone, Copy, Debug)]
pub struct CpuBackend {
    isa: Isa,
}

impl CpuBackend {
    /// With the best instructions that this machine has.
    pub fn new() -> CpuBackend {
        CpuBackend { isa: Isa::detect() }
    }

    /// One for each instruction set that this machine has, the best first: for tests, which hold
    /// them all to the same meaning.
    pub fn all() -> Vec<CpuBackend> {
        Isa::all().into_iter().map(|isa| CpuBackend { isa }).collect()
    }
}

impl Default for CpuBackend {
    fn default() -> CpuBackend {
        CpuBackend::new()
    }
}

impl Backend for CpuBackend {
    fn device(&self) -> String {
        format!("cpu ({})", self.isa)
    }

    fn compile(
        &self,
        graph: &Graph,
        weights: &Weights,
        references: &[Arc<ReferenceMatrix>],
        limits: &Limits,
    ) -> Result<Box<dyn Plan>> {
        if references.len() != graph.references().len() {
            return Err(Error::weights(
                "reference matrices",
                format!("the graph needs {}, there are {}", graph.references().len(), references.len()),
            ));
        }
        let program = shared_programs::program(self.isa, graph, weights)?;
        let references = references.iter().enumerate();
        let references: Result<Vec<_>> =
            references.map(|(index, matrix)| plan::prepare(graph, index, matrix.clone())).collect();
        let runner = run::Runner::new(self.isa, &program, references?, limits)?;
        Ok(Box::new(plan::CpuPlan { graph: graph.clone(), program, runner, done: VecDeque::new() }))
    }
}

#[cfg(test)]
mod tests;
