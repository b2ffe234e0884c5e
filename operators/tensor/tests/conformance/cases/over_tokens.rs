//! Ops that know of tokens: attention, pooling, hashes.

use thalweg_tensor::Element;
use thalweg_tensor::op::Pooling;

use super::{FLOATS, ROWS_MANY, Runner, graph_of};
use crate::generate::{KINDS, Kind};

pub fn run(runner: &mut Runner<'_>) {
    for element in FLOATS {
        for (heads, d) in [(1, 3), (2, 17), (4, 8), (12, 32), (1, 64), (2, 64), (1, 130)] {
            for causal in [false, true] {
                attention(runner, element, (heads, d), causal, Kind::Normal, 70);
            }
        }
        for kind in KINDS {
            attention(runner, element, (2, 16), false, kind, 40);
            attention(runner, element, (2, 16), true, kind, 40);
        }
        attention(runner, element, (2, 32), false, Kind::Normal, 500);
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Max] {
            for n in [1, 3, 17, 384] {
                for kind in KINDS {
                    pool(runner, element, (pooling, n), kind);
                }
            }
        }
    }
    hashes(runner);
}

fn attention(
    runner: &mut Runner<'_>,
    element: Element,
    (heads, d): (usize, usize),
    causal: bool,
    kind: Kind,
    longest: usize,
) {
    let width = heads * d;
    let graph = graph_of(|builder| {
        let tokens = builder.tokens("tokens", longest)?;
        let mut look_up = |table: &str| {
            let table = builder.weight(table, [200, width])?;
            builder.gather(tokens, table, element)
        };
        let values = [look_up("query table")?, look_up("key table")?, look_up("value table")?];
        Ok(vec![builder.attention(values, heads, causal)?])
    });
    let batches = runner.ragged_batches(&graph, kind, longest);
    let name = format!("attention {element}, {heads} heads of {d}, causal {causal}");
    runner.case(name, graph, (kind, element, 1.0), vec![], batches);
}

fn pool(runner: &mut Runner<'_>, element: Element, (pooling, n): (Pooling, usize), kind: Kind) {
    let graph = graph_of(|builder| {
        let tokens = builder.tokens("tokens", 2_000)?;
        let table = builder.weight("table", [50, n])?;
        let x = builder.gather(tokens, table, element)?;
        Ok(vec![builder.pool(x, pooling)?])
    });
    let mut batches = runner.ragged_batches(&graph, kind, if n == 17 { 2_000 } else { 60 });
    if n == 3 && kind == Kind::Normal {
        let lengths: Vec<usize> = (0..ROWS_MANY).map(|row| row % 4).collect();
        batches.push(("many rows".to_owned(), runner.generate.batch(&graph, kind, ROWS_MANY, &lengths)));
    }
    runner.case(format!("pool {pooling:?} {element}[{n}]"), graph, (kind, element, 1.0), vec![], batches);
}

/// Bit for bit. `Kind::Normal` makes few different tokens, many of them twice in a row; any other kind
/// makes any, negative ones among them.
pub fn hashes(runner: &mut Runner<'_>) {
    for (hashes, words, width, seed) in [(1, 1, 1, 0), (3, 2, 37, 7), (128, 4, 1_024, u64::MAX)] {
        let graph = graph_of(|builder| {
            let tokens = builder.tokens("tokens", 3_000)?;
            let min_hash = builder.min_hash(tokens, hashes, seed)?;
            let sim_hash = builder.sim_hash(tokens, words, seed)?;
            Ok(vec![min_hash, sim_hash, builder.feature_hash(tokens, width, seed)?])
        });
        let mut batches = runner.ragged_batches(&graph, Kind::Normal, 3_000);
        batches.extend(runner.ragged_batches(&graph, Kind::Large, 100));
        if hashes == 3 {
            let lengths: Vec<usize> = (0..ROWS_MANY).map(|row| row % 4).collect();
            let many = runner.generate.batch(&graph, Kind::Large, ROWS_MANY, &lengths);
            batches.push(("many rows".to_owned(), many));
        }
        let name = format!("hashes {hashes}, {words}, {width}, seed {seed}");
        runner.case(name, graph, (Kind::Normal, Element::F32, 0.0), vec![], batches);
    }
}
