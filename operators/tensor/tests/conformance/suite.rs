//! Runs cases through a backend and holds what comes out against the oracle.

use std::sync::Arc;

use thalweg_tensor::{Backend, Graph, Limits, Plan, ReferenceMatrix, Result, TensorBatch, Weights};

use crate::compare::difference;
use crate::oracle::Oracle;

/// A graph, and batches for it.
pub struct Case {
    pub name: String,
    pub graph: Graph,
    pub weights: Weights,
    pub references: Vec<Arc<ReferenceMatrix>>,
    pub batches: Vec<(String, TensorBatch)>,
    /// How often slack is taken: 1 for an op alone, 0 where all must be exact.
    pub safety: f64,
}

/// What a run of the suite found.
#[derive(Debug, Default)]
pub struct Report {
    pub batches: usize,
    pub failures: Vec<String>,
}

impl Report {
    pub fn fail(&mut self, failure: String) {
        self.failures.push(failure);
    }

    /// Panics with what failed, the first twenty of it.
    pub fn require(&self, label: &str) {
        let shown: Vec<&str> = self.failures.iter().take(20).map(String::as_str).collect();
        let failed = self.failures.len();
        assert!(failed == 0, "{label}: {failed} of {} fail\n{}", self.batches, shown.join("\n"));
    }
}

/// What a backend is given to run the suite with.
pub fn limits() -> Limits {
    Limits { threads: 2, ..Limits::default() }
}

/// Every batch of a case through one plan, with as many in flight as the limits allow.
pub fn run(backend: &dyn Backend, case: &Case, report: &mut Report) {
    run_within(backend, case, &limits(), report);
}

pub fn run_within(backend: &dyn Backend, case: &Case, limits: &Limits, report: &mut Report) {
    report.batches += case.batches.len();
    if let Err(error) = try_run(backend, case, limits, report) {
        report.fail(format!("{}: {error}", case.name));
    }
}

fn try_run(backend: &dyn Backend, case: &Case, limits: &Limits, report: &mut Report) -> Result<()> {
    let oracle = Oracle::new(&case.graph, &case.weights, &case.references, case.safety)?;
    let mut plan = backend.compile(&case.graph, &case.weights, &case.references, limits)?;
    let (mut submitted, mut finished) = (0, 0);
    while finished < case.batches.len() {
        while submitted < case.batches.len() && submitted - finished < limits.in_flight_max {
            plan.submit(case.batches[submitted].1.clone())?;
            submitted += 1;
        }
        let (name, batch) = &case.batches[finished];
        let got = next(&mut *plan)?;
        if let Some(reason) = check(&oracle, case, batch, &got) {
            report.fail(format!("{}, {name}: {reason}", case.name));
        }
        finished += 1;
    }
    Ok(())
}

/// The oldest batch's outputs; none is an error here.
pub fn next(plan: &mut dyn Plan) -> Result<TensorBatch> {
    match plan.finish()? {
        Some(finished) => Ok(finished.batch),
        None => Ok(TensorBatch { rows: usize::MAX, tensors: Vec::new() }),
    }
}

/// Why a batch's outputs are not what the oracle says.
pub fn check(oracle: &Oracle<'_>, case: &Case, batch: &TensorBatch, got: &TensorBatch) -> Option<String> {
    let wanted = oracle.outputs(batch);
    if got.rows != batch.rows || got.tensors.len() != wanted.len() {
        return Some(format!("{} outputs of {} rows", got.tensors.len(), got.rows as isize));
    }
    let outputs = wanted.iter().zip(&got.tensors).zip(case.graph.outputs());
    outputs
        .filter_map(|((want, got), (name, _))| {
            difference(want, got, case.safety).map(|reason| format!("output `{name}` {reason}"))
        })
        .next()
}
