//! Every op alone: over the elements that it takes, over shapes, over kinds of numbers.

pub mod look_up;
pub mod over_tokens;
pub mod over_vectors;

use std::sync::Arc;

use thalweg_tensor::op::ValueId;
use thalweg_tensor::{Backend, Element, Graph, GraphBuilder, ReferenceMatrix, Result, TensorBatch};

use crate::generate::{Generate, KINDS, Kind};
use crate::suite::{self, Case, Report};

pub const FLOATS: [Element; 2] = [Element::F32, Element::F16];
/// Innermost dimensions: one, odd ones, a warp, a model's width, no multiple of anything wide.
pub const WIDTHS: [usize; 6] = [1, 3, 17, 32, 384, 1000];
/// What light ops are given once.
pub const ROWS_MANY: usize = 100_000;

/// Runs cases, one after the other.
pub struct Runner<'a> {
    pub backend: &'a dyn Backend,
    pub generate: Generate,
    pub report: Report,
}

/// Every op alone.
pub fn run_ops(backend: &dyn Backend) -> Report {
    run_parts(backend, &[over_vectors::run, over_tokens::run, look_up::run])
}

/// Some of the ops.
pub fn run_parts(backend: &dyn Backend, parts: &[fn(&mut Runner<'_>)]) -> Report {
    let mut runner = Runner { backend, generate: Generate::new(1), report: Report::default() };
    parts.iter().for_each(|part| part(&mut runner));
    runner.report
}

/// A graph of what `build` makes: its values become the outputs `out0`, `out1` and so on.
pub fn graph_of(build: impl FnOnce(&mut GraphBuilder) -> Result<Vec<ValueId>>) -> Graph {
    let mut builder = GraphBuilder::new();
    let values = build(&mut builder).expect("the case's graph is right");
    for (index, value) in values.into_iter().enumerate() {
        builder.output(&format!("out{index}"), value).expect("names differ");
    }
    builder.build().expect("has inputs and outputs")
}

impl Runner<'_> {
    pub fn case(
        &mut self,
        name: String,
        graph: Graph,
        (kind, element, safety): (Kind, Element, f64),
        references: Vec<Arc<ReferenceMatrix>>,
        batches: Vec<(String, TensorBatch)>,
    ) {
        let weights = self.generate.weights(&graph, kind, element);
        let case = Case { name, graph, weights, references, batches, safety };
        suite::run(self.backend, &case, &mut self.report);
    }

    /// Batches of fixed rows: every kind, then every count of rows.
    pub fn fixed_batches(
        &mut self,
        graph: &Graph,
        kinds: &[Kind],
        rows: &[usize],
    ) -> Vec<(String, TensorBatch)> {
        let mut batches = Vec::new();
        for kind in kinds {
            batches.push((format!("{kind:?}"), self.generate.batch(graph, *kind, 9, &[])));
        }
        for rows in rows {
            batches.push((format!("{rows} rows"), self.generate.batch(graph, Kind::Normal, *rows, &[])));
        }
        batches
    }

    /// Batches of rows of varying length: many lengths, none, one of one token, only empty rows.
    pub fn ragged_batches(
        &mut self,
        graph: &Graph,
        kind: Kind,
        longest: usize,
    ) -> Vec<(String, TensorBatch)> {
        let mut all = vec![vec![], vec![1], vec![0, 0, 0], self.generate.lengths(9, longest)];
        all.push(vec![2; 33]);
        let named = |lengths: Vec<usize>| {
            let name = format!("{kind:?}, lengths {lengths:?}");
            (name, self.generate.batch(graph, kind, lengths.len(), &lengths))
        };
        all.into_iter().map(named).collect()
    }
}

/// All kinds but some.
pub fn kinds_without(without: &[Kind]) -> Vec<Kind> {
    KINDS.into_iter().filter(|kind| !without.contains(kind)).collect()
}
