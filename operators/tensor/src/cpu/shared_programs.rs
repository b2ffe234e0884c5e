//! Programs that plans share: a graph's weights are packed once in a process, however many instances
//! of a transform run it.
//!
//! A program lives as long as a plan that runs it; what is kept here only knows where it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::compile::compile;
use super::isa::Isa;
use super::program::Program;
use crate::{Graph, Result, Weights};

/// A program that there is or was, and what it was made of.
struct Known {
    isa: Isa,
    graph: Graph,
    weights: [u8; 32],
    /// Held while it is made, so that plans which want the same one wait for it.
    program: Mutex<Weak<Program>>,
}

static KNOWN: Mutex<Vec<Arc<Known>>> = Mutex::new(Vec::new());

/// A graph's program with these weights: the one that other plans run, or a new one.
pub(super) fn program(isa: Isa, graph: &Graph, weights: &Weights) -> Result<Arc<Program>> {
    // Refuses weights that do not fit before all of them are hashed.
    weights.check(graph)?;
    let known = known(isa, graph, weights.hash());
    let mut program = lock(&known.program);
    if let Some(program) = program.upgrade() {
        return Ok(program);
    }
    let made = Arc::new(compile(isa, graph, weights)?);
    *program = Arc::downgrade(&made);
    Ok(made)
}

fn known(isa: Isa, graph: &Graph, weights: [u8; 32]) -> Arc<Known> {
    let mut all = lock(&KNOWN);
    // Whoever has a second reference is about to look at the program, or makes it just now.
    all.retain(|known| Arc::strong_count(known) > 1 || lock(&known.program).strong_count() > 0);
    let is_wanted =
        |known: &&Arc<Known>| known.isa == isa && known.weights == weights && known.graph == *graph;
    if let Some(known) = all.iter().find(is_wanted) {
        return known.clone();
    }
    let program = Mutex::new(Weak::new());
    let known = Arc::new(Known { isa, graph: graph.clone(), weights, program });
    all.push(known.clone());
    known
}

/// What is guarded is whole at every moment, so a thread that died with it has spoilt nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::buffer::Buffer;

    use super::*;
    use crate::weights::StoredTensor;
    use crate::{Backend, CpuBackend, Element, GraphBuilder, Limits, Plan, Tensor, TensorBatch};

    const WIDTH: usize = 64;

    fn graph() -> Graph {
        let mut builder = GraphBuilder::new();
        let x = builder.tensor("x", Element::F32, [WIDTH]).unwrap();
        let weight = builder.weight("shared", [WIDTH, WIDTH]).unwrap();
        let y = builder.matmul(x, weight, None, None).unwrap();
        builder.output("y", y).unwrap();
        builder.build().unwrap()
    }

    fn weights(scale: f32) -> Weights {
        let numbers: Vec<f32> = (0..WIDTH * WIDTH).map(|i| (i % 13) as f32 * scale).collect();
        let mut weights = Weights::default();
        let (dims, data) = (vec![WIDTH, WIDTH], Buffer::from_vec(numbers));
        weights.insert("shared", StoredTensor { element: Element::F32, dims, data }).unwrap();
        weights
    }

    fn plan(weights: &Weights) -> Box<dyn Plan> {
        CpuBackend::new().compile(&graph(), weights, &[], &Limits::default()).unwrap()
    }

    fn run(plan: &mut dyn Plan) -> Vec<u8> {
        let numbers: Vec<f32> = (0..3 * WIDTH).map(|i| (i % 7) as f32 - 3.0).collect();
        let x = Tensor::fixed(Element::F32, [WIDTH], 3, Buffer::from_vec(numbers)).unwrap();
        plan.submit(TensorBatch { rows: 3, tensors: vec![x] }).unwrap();
        plan.finish().unwrap().unwrap().batch.tensors[0].data().to_vec()
    }

    /// The program of these weights, if there is one.
    fn there_is(weights: &Weights) -> Option<usize> {
        let all = lock(&KNOWN);
        let known = all.iter().find(|known| known.weights == weights.hash() && known.graph == graph());
        known.map(|known| lock(&known.program).strong_count()).filter(|plans| *plans > 0)
    }

    #[test]
    fn plans_of_one_graph_and_the_same_weights_share_what_is_packed() {
        // Other memory, the same numbers.
        let (ours, same, other) = (weights(0.31), weights(0.31), weights(0.57));
        assert_eq!(there_is(&ours), None);
        let mut first = plan(&ours);
        let alone = first.device_bytes();
        assert!(alone >= WIDTH * WIDTH * size_of::<f32>());
        let result = run(&mut *first);
        let scratch = first.device_bytes() - alone;
        let mut second = plan(&same);
        let mut third = plan(&other);
        assert_eq!((there_is(&ours), there_is(&other)), (Some(2), Some(1)));
        assert_eq!(second.device_bytes(), alone.div_ceil(2));
        assert_eq!(first.device_bytes(), alone.div_ceil(2) + scratch);
        assert_eq!(third.device_bytes(), alone);
        assert_eq!(run(&mut *second), result);
        assert_ne!(run(&mut *third), result);
        drop(first);
        assert_eq!((there_is(&ours), run(&mut *second)), (Some(1), result));
        let program = Arc::downgrade(&program(CpuBackend::new().isa, &graph(), &ours).unwrap());
        assert_eq!(program.strong_count(), 1);
        drop(second);
        assert_eq!((program.strong_count(), there_is(&ours)), (0, None));
    }

    #[test]
    fn plans_that_are_made_at_once_pack_once() {
        let weights = weights(0.91);
        let plans: Vec<Box<dyn Plan>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| plan(&weights))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(there_is(&weights), Some(plans.len()));
    }
}
