//! The suite on a real device, and what only a device can show. There with the feature `test-gpu`
//! alone (`make test-gpu`): without a device these tests fail, they do not pass.

use std::sync::Arc;

use thalweg_tensor::cuda::device::CudaBackend;
use thalweg_tensor::{Backend, Element, Error, Limits, Plan};

use crate::generate::{Generate, Kind};
use crate::graphs::{Sizes, encoder};
use crate::suite::{self, Case, Report, limits};
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
