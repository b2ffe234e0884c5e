//! The suite on a real device, and what only a device can show. There with the feature `test-gpu`
//! alone (`make test-gpu`): without a device these tests fail, they do not pass.

use std::sync::Arc;
use std::time::Instant;

use thalweg_tensor::cuda::device::CudaBackend;
use thalweg_tensor::op::{Metric, ReferenceId};
use thalweg_tensor::{Backend, Element, Error, Graph, Limits, Plan, ReferenceMatrix, Tensor, Weights};

use crate::cases::graph_of;
use crate::cases::look_up::matrix;
use crate::generate::{Generate, Kind};
use crate::graphs::{Sizes, encoder};
use crate::suite::{self, Case, Report, limits, next};
use crate::tolerance::GRAPH;

/// The device that `THALWEG_DEVICE` numbers, or the first.
fn device() -> Arc<CudaBackend> {
    let ordinal = std::env::var("THALWEG_DEVICE").map_or(0, |number| number.parse().unwrap());
    CudaBackend::shared(ordinal).expect("a device: without one nothing is tested")
}

#[test]
fn the_device_conforms() {
    let backend = device();
    println!("on {}: {:?}", backend.device(), backend.facts());
    // One after the other, as the cases come, they would take a lent device's time.
    let (start, kernels) = (Instant::now(), crate::nvrtc::kernels(crate::SEEDS));
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    backend.prepare(&kernels, threads).unwrap();
    println!("{} kernels by {threads} threads in {:.1?}", kernels.len(), start.elapsed());
    crate::far_cluster::run_far_cluster(&*backend).require("a far cluster");
    crate::conforms(&*backend);
    crate::agrees_on_minilm(&*backend);
}

fn encoder_case(lengths: &[usize], batches: usize) -> Case {
    let mut generate = Generate::new(77);
    let graph = encoder(Element::F32, &Sizes { hidden: 64, heads: 4, inner: 128 });
    let weights = generate.weights(&graph, Kind::Normal, Element::F32);
    let batches = (0..batches)
        .map(|index| (format!("batch {index}"), generate.batch(&graph, Kind::Normal, lengths.len(), lengths)))
        .collect();
    Case { name: "encoder".into(), graph, weights, references: vec![], batches, safety: GRAPH }
}

/// Bytes that a plan holds before its first batch.
fn fixed_bytes(backend: &dyn Backend, case: &Case, limits: &Limits) -> usize {
    backend.compile(&case.graph, &case.weights, &[], limits).unwrap().device_bytes()
}

#[test]
fn too_little_memory_for_a_batch_makes_parts_with_the_same_answers_and_the_bound_holds() {
    let backend = device();
    let case = encoder_case(&[60; 300], 4);
    let needed = {
        let mut plan = backend.compile(&case.graph, &case.weights, &[], &limits()).unwrap();
        plan.submit(case.batches[0].1.clone()).unwrap();
        plan.finish().unwrap();
        plan.device_bytes()
    };
    for divisor in [2, 5, 20] {
        let tight = Limits { memory_bytes_max: needed / divisor, ..limits() };
        let mut plan = backend.compile(&case.graph, &case.weights, &[], &tight).unwrap();
        plan.submit(case.batches[0].1.clone()).unwrap();
        assert!(plan.device_bytes() <= tight.memory_bytes_max, "{} bytes", plan.device_bytes());
        assert_eq!(plan.finish().unwrap().unwrap().batch.rows, 300);
        let mut report = Report::default();
        suite::run_within(&*backend, &case, &tight, &mut report);
        report.require(&format!("a {divisor}th of {needed} bytes"));
    }
}

#[test]
fn a_row_that_does_not_fit_is_an_error_with_numbers_and_the_next_batch_goes_on() {
    let backend = device();
    let case = encoder_case(&[60, 60], 1);
    let fixed = fixed_bytes(&*backend, &case, &Limits { memory_bytes_max: 2 << 20, ..limits() });
    let tight = Limits { memory_bytes_max: fixed + (20 << 10), in_flight_max: 1, ..limits() };
    let mut plan = backend.compile(&case.graph, &case.weights, &[], &tight).unwrap();
    plan.submit(case.batches[0].1.clone()).unwrap();
    let error = plan.finish().unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert!(error.to_string().contains("row 0 of the batch needs"), "{error}");
    let short = encoder_case(&[1], 1);
    plan.submit(short.batches[0].1.clone()).unwrap();
    assert_eq!(plan.finish().unwrap().unwrap().batch.rows, 1);
}

#[test]
fn plans_dropped_with_batches_under_way_leave_a_device_that_works() {
    let backend = device();
    let case = encoder_case(&[10; 8], 1);
    let plans: Vec<Box<dyn Plan>> = (0..3)
        .map(|_| {
            let mut plan = backend.compile(&case.graph, &case.weights, &[], &limits()).unwrap();
            // Dropped with a batch under way.
            plan.submit(case.batches[0].1.clone()).unwrap();
            plan
        })
        .collect();
    drop(plans);
    let mut plan = backend.compile(&case.graph, &case.weights, &[], &limits()).unwrap();
    plan.submit(case.batches[0].1.clone()).unwrap();
    let finished = plan.finish().unwrap().unwrap();
    assert!(finished.copied_bytes > 0 && !finished.device_time.is_zero(), "{finished:?}");
}

/// A plan is made on one thread and used on another: the context must be current there too.
#[test]
fn a_plan_works_on_a_thread_that_has_never_seen_the_device() {
    let backend = device();
    let case = encoder_case(&[10; 8], 1);
    let mut plan = backend.compile(&case.graph, &case.weights, &[], &limits()).unwrap();
    let batch = case.batches[0].1.clone();
    let finished = std::thread::spawn(move || {
        plan.submit(batch)?;
        plan.finish()
    });
    assert_eq!(finished.join().unwrap().unwrap().unwrap().batch.rows, 8);
}

/// A search among many vectors: its upload takes long enough to be seen.
fn search(width: usize, metric: Metric) -> Graph {
    graph_of(|builder| {
        let query = builder.tensor("query", Element::F16, [width])?;
        let reference = builder.reference("reference", width)?;
        builder.top_k(query, reference, metric, 5).map(|(ids, scores)| vec![ids, scores])
    })
}

#[test]
fn a_new_matrix_comes_while_the_old_one_is_searched_and_the_next_batch_has_it() {
    const WIDTH: usize = 256;
    let (backend, mut generate) = (device(), Generate::new(41));
    for metric in [Metric::Dot, Metric::L2] {
        let graph = search(WIDTH, metric);
        let [old, new] = [(); 2].map(|()| matrix(&mut generate, Kind::Normal, 200_000, WIDTH));
        let compile = |matrix: &Arc<ReferenceMatrix>| {
            backend.compile(&graph, &Weights::default(), &[Arc::clone(matrix)], &limits()).unwrap()
        };
        let batch = generate.batch(&graph, Kind::Normal, 64, &[]);
        let alone = |matrix| {
            let mut plan = compile(matrix);
            plan.submit(batch.clone()).unwrap();
            next(&mut *plan).unwrap()
        };
        let wanted = [alone(&old), alone(&new)];
        let mut plan = compile(&old);
        plan.submit(batch.clone()).unwrap();
        let start = Instant::now();
        plan.set_reference(ReferenceId(0), Arc::clone(&new)).unwrap();
        let returned = start.elapsed();
        plan.submit(batch.clone()).unwrap();
        let there = start.elapsed();
        println!("{metric:?}: back after {returned:.1?}, there after {there:.1?}");
        assert!(returned < there / 2, "{returned:?} of {there:?}: it waits for the upload");
        for wanted in wanted {
            let got = next(&mut *plan).unwrap();
            let same = |(left, right): (&Tensor, &Tensor)| left.data() == right.data();
            assert!(got.tensors.iter().zip(&wanted.tensors).all(same), "{metric:?}");
        }
    }
}

#[test]
fn a_matrix_that_does_not_fit_beside_the_old_one_is_refused_and_the_old_one_stays() {
    let (backend, mut generate) = (device(), Generate::new(43));
    let graph = search(64, Metric::Dot);
    let [small, large] = [1_000, 400_000].map(|vectors| matrix(&mut generate, Kind::Normal, vectors, 64));
    let tight = Limits { memory_bytes_max: 48 << 20, in_flight_max: 1, ..limits() };
    let mut plan = backend.compile(&graph, &Weights::default(), &[small], &tight).unwrap();
    let batch = generate.batch(&graph, Kind::Normal, 8, &[]);
    plan.submit(batch.clone()).unwrap();
    let before = next(&mut *plan).unwrap();
    let error = plan.set_reference(ReferenceId(0), large).unwrap_err();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
    assert!(error.to_string().contains("reference matrix `reference`"), "{error}");
    plan.submit(batch).unwrap();
    assert_eq!(next(&mut *plan).unwrap().tensors[0].data(), before.tensors[0].data());
    assert!(plan.device_bytes() <= tight.memory_bytes_max);
}
