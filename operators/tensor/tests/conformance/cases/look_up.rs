//! Gather, positions and top-k.

use std::sync::Arc;

use arrow::buffer::ScalarBuffer;
use thalweg_tensor::op::Metric;
use thalweg_tensor::{Element, ReferenceMatrix};

use super::{FLOATS, ROWS_MANY, Runner, graph_of, kinds_without};
use crate::generate::{Generate, KINDS, Kind};

pub fn run(runner: &mut Runner<'_>) {
    for element in FLOATS {
        for width in [1, 3, 17, 384, 1000] {
            gather(runner, element, width);
        }
        for stored in FLOATS {
            positions(runner, element, stored);
        }
        for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
            for (width, vectors, k) in [
                (1, 1, 1),
                (3, 5, 10),
                (17, 1_000, 3),
                (32, 0, 4),
                (384, 300, 10),
                (33, 2_500, 100),
                (8, 1_500, 1_024),
            ] {
                top_k(runner, element, metric, (width, vectors, k));
            }
            ties(runner, element, metric);
        }
    }
}

fn gather(runner: &mut Runner<'_>, element: Element, width: usize) {
    for (stored, kind) in [(Element::F32, Kind::Normal), (Element::F16, Kind::Normal), (element, Kind::Nan)] {
        let graph = graph_of(|builder| {
            let table = builder.weight("table", [57, width])?;
            let scalar = builder.tensor("scalar", Element::I32, [])?;
            let several = builder.tensor("several", Element::I32, [2, 3])?;
            Ok(vec![builder.gather(scalar, table, element)?, builder.gather(several, table, element)?])
        });
        let rows: &[usize] = if width == 3 { &[0, 1, 33, ROWS_MANY] } else { &[0, 1, 33] };
        let batches = runner.fixed_batches(&graph, &[], rows);
        let name = format!("gather {width} of {stored} as {element}");
        runner.case(name, graph, (kind, stored, 0.0), vec![], batches);
    }
    let graph = graph_of(|builder| {
        let x = builder.tensor("x", element, [4])?;
        let table = builder.weight("table", [5, width])?;
        let ids = builder.bucketise(x, vec![-1.0, 0.0, 0.5, 1.0])?;
        Ok(vec![builder.gather(ids, table, element)?])
    });
    let batches = runner.fixed_batches(&graph, &KINDS, &[]);
    runner.case(format!("gather {width} by bucket"), graph, (Kind::Normal, element, 0.0), vec![], batches);
}

fn positions(runner: &mut Runner<'_>, element: Element, stored: Element) {
    let graph = graph_of(|builder| {
        let tokens = builder.tokens("tokens", 512)?;
        let table = builder.weight("table", [40, 33])?;
        Ok(vec![builder.positions(tokens, table, element)?])
    });
    let batches = runner.ragged_batches(&graph, Kind::Normal, 40);
    let name = format!("positions of {stored} as {element}");
    runner.case(name, graph, (Kind::Normal, stored, 0.0), vec![], batches);
}

/// A matrix with ids that are no places; some vectors stand in it twice.
pub fn matrix(generate: &mut Generate, kind: Kind, vectors: usize, width: usize) -> Arc<ReferenceMatrix> {
    let mut numbers = generate.floats(kind, Element::F32, vectors, width);
    for _ in 0..vectors / 10 {
        let (from, to) = (generate.below(vectors), generate.below(vectors));
        numbers.copy_within(from * width..(from + 1) * width, to * width);
    }
    let ids: Vec<i64> = (0..vectors as i64).map(|row| (row - 3) * 1_000_000_007).collect();
    Arc::new(ReferenceMatrix::new("reference", width, numbers.into(), ScalarBuffer::from(ids)).unwrap())
}

fn top_k(
    runner: &mut Runner<'_>,
    element: Element,
    metric: Metric,
    (width, vectors, k): (usize, usize, usize),
) {
    let graph = graph_of(|builder| {
        let query = builder.tensor("query", element, [width])?;
        let reference = builder.reference("reference", width)?;
        builder.top_k(query, reference, metric, k).map(|(ids, scores)| vec![ids, scores])
    });
    // Norms of denormal vectors may be 0 to one and not to the other.
    let without: &[Kind] = if metric == Metric::Cosine { &[Kind::Denormal] } else { &[] };
    let rows: &[usize] = if width == 17 { &[0, 1, 300] } else { &[0, 1, 33] };
    let batches = runner.fixed_batches(&graph, &kinds_without(without), rows);
    let matrix = matrix(&mut runner.generate, Kind::Normal, vectors, width);
    let name = format!("top_k {element}[{width}] {metric:?}, {k} of {vectors}");
    runner.case(name, graph, (Kind::Normal, element, 1.0), vec![matrix], batches);
}

/// Scores that are exact, many of them equal: the earlier vector comes first. And vectors of zeros,
/// NaN and infinity in the matrix.
fn ties(runner: &mut Runner<'_>, element: Element, metric: Metric) {
    let graph = graph_of(|builder| {
        let query = builder.tensor("query", element, [5])?;
        let reference = builder.reference("reference", 5)?;
        builder.top_k(query, reference, metric, 50).map(|(ids, scores)| vec![ids, scores])
    });
    if metric != Metric::Cosine {
        let batches = runner.fixed_batches(&graph, &[Kind::Integers, Kind::Zeros], &[]);
        let matrix = matrix(&mut runner.generate, Kind::Integers, 3_000, 5);
        let name = format!("top_k {element} {metric:?} ties");
        runner.case(name, graph.clone(), (Kind::Integers, element, 0.0), vec![matrix], batches);
    }
    for kind in [Kind::Zeros, Kind::Nan, Kind::Infinite] {
        let batches = runner.fixed_batches(&graph, &[Kind::Normal], &[]);
        let matrix = matrix(&mut runner.generate, kind, 60, 5);
        let name = format!("top_k {element} {metric:?} of {kind:?}");
        runner.case(name, graph.clone(), (Kind::Normal, element, 1.0), vec![matrix], batches);
    }
}
