//! What a plan owes besides numbers: order, refusal, limits, and the same bits every time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::buffer::Buffer;
use thalweg_tensor::op::{Metric, ReferenceId};
use thalweg_tensor::{
    Backend, Element, Graph, Limits, Plan, ReferenceMatrix, Result, Tensor, TensorBatch, Weights,
};

use crate::cases::look_up::matrix;
use crate::cases::{FLOATS, graph_of};
use crate::generate::{Generate, Kind, offsets};
use crate::graphs::{Sizes, encoder};
use crate::suite::{self, Case, Report, limits, next};
use crate::tolerance::GRAPH;

/// A graph with what it needs.
struct Job {
    graph: Graph,
    weights: Weights,
    references: Vec<Arc<ReferenceMatrix>>,
}

/// Everything about plans.
pub fn run_protocol(backend: &dyn Backend) -> Report {
    let mut report = Report::default();
    let checks: [(&str, fn(&dyn Backend) -> Result<Option<String>>); 7] = [
        ("order", keeps_order),
        ("nothing under way", finishes_nothing),
        ("readiness", becomes_ready),
        ("wrong batches", refuses_other_types),
        ("wrong weights", refuses_other_weights),
        ("new reference", replaces_references),
        ("determinism", repeats_itself),
    ];
    for (name, check) in checks {
        report.batches += 1;
        match check(backend) {
            Ok(None) => {}
            Ok(Some(reason)) => report.fail(format!("{name}: {reason}")),
            Err(error) => report.fail(format!("{name}: {error}")),
        }
    }
    beyond_limits(backend, &mut report);
    report
}

fn job(generate: &mut Generate, element: Element) -> Job {
    let graph = encoder(element, &Sizes { hidden: 32, heads: 2, inner: 40 });
    let weights = generate.weights(&graph, Kind::Normal, element);
    Job { graph, weights, references: vec![] }
}

fn look_up_job(generate: &mut Generate) -> Job {
    let graph = graph_of(|builder| {
        let query = builder.tensor("query", Element::F32, [8])?;
        let reference = builder.reference("reference", 8)?;
        builder.top_k(query, reference, Metric::Dot, 3).map(|(ids, scores)| vec![ids, scores])
    });
    Job { graph, weights: Weights::default(), references: vec![matrix(generate, Kind::Normal, 50, 8)] }
}

impl Job {
    fn plan(&self, backend: &dyn Backend, limits: &Limits) -> Result<Box<dyn Plan>> {
        backend.compile(&self.graph, &self.weights, &self.references, limits)
    }

    /// Batches of growing size.
    fn batches(&self, generate: &mut Generate, count: usize) -> Vec<TensorBatch> {
        let batch = |index: usize| {
            let lengths = generate.lengths(1 + index * 3, 30);
            generate.batch(&self.graph, Kind::Normal, lengths.len(), &lengths)
        };
        (0..count).map(batch).collect()
    }
}

/// Equal to the bit.
fn is_same(left: &TensorBatch, right: &TensorBatch) -> bool {
    left.rows == right.rows
        && left.tensors.len() == right.tensors.len()
        && left.tensors.iter().zip(&right.tensors).all(|(left, right)| left.data() == right.data())
}

/// Whether more batches are submitted than may be in flight or as many: they come out as they went in.
fn keeps_order(backend: &dyn Backend) -> Result<Option<String>> {
    let mut generate = Generate::new(3);
    let job = job(&mut generate, Element::F32);
    for in_flight_max in [1, 2, 4] {
        let mut plan = job.plan(backend, &Limits { in_flight_max, ..limits() })?;
        let batches = job.batches(&mut generate, 6);
        for batch in &batches {
            plan.submit(batch.clone())?;
        }
        for batch in &batches {
            let got = next(&mut *plan)?.rows;
            if got != batch.rows {
                return Ok(Some(format!("{got} rows came out in the place of {}", batch.rows)));
            }
        }
        if plan.finish()?.is_some() {
            return Ok(Some("more came out than went in".to_owned()));
        }
    }
    Ok(None)
}

fn finishes_nothing(backend: &dyn Backend) -> Result<Option<String>> {
    let mut generate = Generate::new(4);
    let job = job(&mut generate, Element::F32);
    let mut plan = job.plan(backend, &limits())?;
    if !plan.is_ready() || plan.finish()?.is_some() {
        return Ok(Some("a plan without batches waits, or gives one".to_owned()));
    }
    plan.submit(job.batches(&mut generate, 1).remove(0))?;
    let finished = (plan.finish()?.is_some(), plan.finish()?.is_some(), plan.is_ready());
    Ok((finished != (true, false, true)).then(|| format!("of one batch it gave {finished:?}")))
}

fn becomes_ready(backend: &dyn Backend) -> Result<Option<String>> {
    let mut generate = Generate::new(5);
    let job = job(&mut generate, Element::F32);
    let mut plan = job.plan(backend, &limits())?;
    plan.submit(job.batches(&mut generate, 1).remove(0))?;
    let start = Instant::now();
    while !plan.is_ready() {
        if start.elapsed() > Duration::from_secs(30) {
            return Ok(Some("a batch is not ready after 30 s".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(plan.finish()?.is_none().then(|| "ready, and nothing came".to_owned()))
}

/// Batches that are not of the graph's types, each in one way.
fn wrong_batches() -> Vec<(&'static str, TensorBatch)> {
    let x = |element: Element, width: usize, rows: usize| {
        let data = Buffer::from_vec(vec![0u64; (rows * width * element.bytes()).div_ceil(8)]);
        Tensor::fixed(element, [width], rows, data.slice_with_length(0, rows * width * element.bytes()))
    };
    let x = |element, width, rows| x(element, width, rows).unwrap();
    let lengths = [2, 0, 1];
    let ragged = |element: Element| {
        let data = Buffer::from_vec(vec![0u32; 3]).slice_with_length(0, 3 * element.bytes());
        Tensor::ragged(element, [], offsets(&lengths), data).unwrap()
    };
    let flat = Tensor::fixed(Element::I32, [], 3, Buffer::from_vec(vec![0i32; 3])).unwrap();
    let of = |rows: usize, tensors: Vec<Tensor>| TensorBatch { rows, tensors };
    let (good_x, good_tokens) = (x(Element::F32, 4, 3), ragged(Element::I32));
    vec![
        ("another element", of(3, vec![x(Element::F16, 4, 3), good_tokens.clone()])),
        ("another width", of(3, vec![x(Element::F32, 5, 3), good_tokens.clone()])),
        ("other rows than the batch", of(2, vec![good_x.clone(), good_tokens.clone()])),
        ("other rows than its neighbour", of(3, vec![x(Element::F32, 4, 2), good_tokens.clone()])),
        ("a column too few", of(3, vec![good_x.clone()])),
        ("a column too many", of(3, vec![good_x.clone(), good_tokens.clone(), good_x.clone()])),
        ("rows of one length where they vary", of(3, vec![good_x.clone(), flat])),
        ("rows that vary where they do not", of(3, vec![ragged(Element::F32), good_tokens])),
    ]
}

fn refuses_other_types(backend: &dyn Backend) -> Result<Option<String>> {
    let graph = graph_of(|builder| {
        let x = builder.tensor("x", Element::F32, [4])?;
        let tokens = builder.tokens("tokens", 10)?;
        Ok(vec![builder.softmax(x)?, builder.min_hash(tokens, 2, 0)?])
    });
    let mut generate = Generate::new(6);
    let right = generate.batch(&graph, Kind::Normal, 3, &[1, 2, 0]);
    let job = Job { graph, weights: Weights::default(), references: vec![] };
    let mut plan = job.plan(backend, &limits())?;
    for (name, batch) in wrong_batches() {
        if plan.submit(batch).is_ok() {
            return Ok(Some(format!("a batch with {name} is taken")));
        }
        if plan.finish()?.is_some() {
            return Ok(Some(format!("a refused batch with {name} is under way")));
        }
    }
    plan.submit(right.clone())?;
    let again = plan.submit(wrong_batches().remove(0).1).is_err();
    let got = next(&mut *plan)?;
    let is_right = again && got.rows == 3 && plan.finish()?.is_none();
    Ok((!is_right).then(|| "a right batch after wrong ones does not come out alone".to_owned()))
}

fn refuses_other_weights(backend: &dyn Backend) -> Result<Option<String>> {
    let mut generate = Generate::new(7);
    let job = job(&mut generate, Element::F32);
    if backend.compile(&job.graph, &Weights::default(), &[], &limits()).is_ok() {
        return Ok(Some("a graph without its weights is compiled".to_owned()));
    }
    let look_up = look_up_job(&mut generate);
    if backend.compile(&look_up.graph, &look_up.weights, &[], &limits()).is_ok() {
        return Ok(Some("a graph without its reference matrix is compiled".to_owned()));
    }
    let other = matrix(&mut generate, Kind::Normal, 5, 7);
    if backend.compile(&look_up.graph, &look_up.weights, std::slice::from_ref(&other), &limits()).is_ok() {
        return Ok(Some("a reference matrix of another width is taken".to_owned()));
    }
    let mut plan = look_up.plan(backend, &limits())?;
    let refused = plan.set_reference(ReferenceId(0), other).is_err();
    Ok((!refused).then(|| "a plan takes a new matrix of another width".to_owned()))
}

/// Batches under way keep the matrix that was there when they were submitted.
fn replaces_references(backend: &dyn Backend) -> Result<Option<String>> {
    let mut generate = Generate::new(8);
    let mut job = look_up_job(&mut generate);
    let mut plan = job.plan(backend, &limits())?;
    let batch = generate.batch(&job.graph, Kind::Normal, 20, &[]);
    // Also by a larger, a smaller and an empty one.
    for vectors in [50, 400, 10, 0, 50] {
        let new = matrix(&mut generate, Kind::Normal, vectors, 8);
        plan.submit(batch.clone())?;
        plan.set_reference(ReferenceId(0), new.clone())?;
        plan.submit(batch.clone())?;
        for references in [job.references.clone(), vec![new.clone()]] {
            let case = Case {
                name: String::new(),
                graph: job.graph.clone(),
                weights: Weights::default(),
                references,
                batches: vec![],
                safety: 1.0,
            };
            let oracle =
                crate::oracle::Oracle::new(&case.graph, &case.weights, &case.references, case.safety)?;
            if let Some(reason) = suite::check(&oracle, &case, &batch, &next(&mut *plan)?) {
                return Ok(Some(reason));
            }
        }
        job.references = vec![new];
    }
    Ok(None)
}

/// The same batch, again, after others, among others in flight, and in another plan.
fn repeats_itself(backend: &dyn Backend) -> Result<Option<String>> {
    let mut generate = Generate::new(9);
    for element in FLOATS {
        let job = job(&mut generate, element);
        let batches = job.batches(&mut generate, 7);
        let mut first: Vec<TensorBatch> = Vec::new();
        for round in 0..3 {
            let mut plan = job.plan(backend, &limits())?;
            let order: Vec<usize> = if round == 1 { (0..7).rev().collect() } else { (0..7).collect() };
            let mut got = vec![None; 7];
            for pair in order.chunks(2) {
                pair.iter().try_for_each(|&index| plan.submit(batches[index].clone()))?;
                for &index in pair {
                    got[index] = Some(next(&mut *plan)?);
                }
            }
            let got: Vec<TensorBatch> = got.into_iter().flatten().collect();
            if round == 0 {
                first = got;
            } else if let Some(index) = (0..7).find(|&index| !is_same(&first[index], &got[index])) {
                return Ok(Some(format!("batch {index} of {element} has other bits in round {round}")));
            }
        }
    }
    Ok(None)
}

/// Batches with more rows or tokens than the plan takes at once are done in parts.
fn beyond_limits(backend: &dyn Backend, report: &mut Report) {
    let mut generate = Generate::new(10);
    let small = Limits { rows_max: 7, tokens_max: 64, ..limits() };
    let (encoder, look_up) = (job(&mut generate, Element::F32), look_up_job(&mut generate));
    for (name, job) in [("encoder", encoder), ("look-up", look_up)] {
        let batches = [7, 8, 0, 29, 1].map(|rows| {
            let lengths = generate.lengths(rows, 50);
            (format!("{rows} rows"), generate.batch(&job.graph, Kind::Normal, rows, &lengths))
        });
        let Job { graph, weights, references } = job;
        let name = format!("{name} beyond its limits");
        let case = Case { name, graph, weights, references, batches: batches.into(), safety: GRAPH };
        suite::run_within(backend, &case, &small, report);
    }
}
