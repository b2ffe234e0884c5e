//! Backends that are wrong on purpose, each in one way, and what of the suite must notice.

use thalweg_tensor::op::{Activation, Metric, Op, Pooling};
use thalweg_tensor::{Backend, Element};

use crate::cases::{look_up, over_tokens, over_vectors, run_ops, run_parts};
use crate::oracle_backend::{Fault, OracleBackend};
use crate::suite::Report;
use crate::value::Value;
use crate::{graphs, protocol, random_graphs};

fn wrong(fault: Fault) -> impl Backend {
    OracleBackend(fault)
}

/// That the report has failures, all of cases that have one of these words in what is said of them.
fn must_fail(report: &Report, words: &[&str]) {
    assert!(!report.failures.is_empty(), "nobody noticed");
    let stray = report.failures.iter().find(|failure| !words.iter().any(|word| failure.contains(word)));
    assert_eq!(stray, None);
}

#[test]
fn another_gelu_is_noticed() {
    let swapped: fn(&Op) -> Op = |op| match op {
        Op::Activate(Activation::Gelu) => Op::Activate(Activation::GeluTanh),
        op => op.clone(),
    };
    must_fail(&run_parts(&wrong(Fault::Op(swapped)), &[over_vectors::light]), &["gelu"]);
}

#[test]
fn an_epsilon_too_great_is_noticed() {
    let normalised: fn(&Op) -> Op = |op| match op {
        Op::L2Normalise { .. } => Op::L2Normalise { epsilon: 1e-8 },
        op => op.clone(),
    };
    must_fail(&run_parts(&wrong(Fault::Op(normalised)), &[over_vectors::light]), &["l2_normalise"]);
}

#[test]
fn another_pooling_metric_or_mask_is_noticed() {
    let other: fn(&Op) -> Op = |op| match op {
        Op::Pool(Pooling::Cls) => Op::Pool(Pooling::Max),
        Op::TopK { reference, metric: Metric::Cosine, k } => {
            Op::TopK { reference: *reference, metric: Metric::Dot, k: *k }
        }
        Op::Attention { heads, .. } => Op::Attention { heads: *heads, causal: false },
        op => op.clone(),
    };
    let report = run_parts(&wrong(Fault::Op(other)), &[over_tokens::run, look_up::run]);
    must_fail(&report, &["Cls", "Cosine", "causal true"]);
    for word in ["Cls", "Cosine", "causal true"] {
        assert!(report.failures.iter().any(|failure| failure.contains(word)), "nobody noticed {word}");
    }
}

#[test]
fn a_seed_that_is_lost_is_noticed() {
    let unseeded: fn(&Op) -> Op = |op| match op {
        Op::MinHash { hashes, .. } => Op::MinHash { hashes: *hashes, seed: 0 },
        op => op.clone(),
    };
    must_fail(&run_parts(&wrong(Fault::Op(unseeded)), &[over_tokens::hashes]), &["hashes"]);
}

/// Four parts in a million: more than any `f32` op with few terms may be off.
#[test]
fn numbers_a_little_off_are_noticed() {
    let off: fn(&mut Value) = |value| {
        if value.element == Element::F32 {
            value.numbers.iter_mut().for_each(|number| *number *= 1.0 + 4e-6);
        }
    };
    let report = run_ops(&wrong(Fault::Value(off)));
    for op in
        ["silu", "add_bias", "layer_norm", "softmax", "l2_normalise", "standardise", "matmul", "pool Mean"]
    {
        assert!(report.failures.iter().any(|failure| failure.starts_with(op)), "nobody noticed {op}");
    }
    assert!(!graphs::run_graphs(&wrong(Fault::Value(off))).failures.is_empty(), "no graph noticed");
    assert!(!random_graphs::run_random(&wrong(Fault::Value(off)), 200).failures.is_empty());
}

#[test]
fn nan_that_is_dropped_is_noticed() {
    let dropped: fn(&mut Value) = |value| {
        value.numbers.iter_mut().filter(|number| number.is_nan()).for_each(|number| *number = 0.0);
    };
    let report = run_ops(&wrong(Fault::Value(dropped)));
    for op in ["relu", "layer_norm", "pool Max", "attention", "quantise", "top_k"] {
        assert!(report.failures.iter().any(|failure| failure.starts_with(op)), "nobody noticed {op}");
    }
}

#[test]
fn later_vectors_first_among_ties_are_noticed() {
    let swapped: fn(&mut Value) = |value| value.integers.chunks_mut(2).for_each(<[i64]>::reverse);
    let report = run_parts(&wrong(Fault::Value(swapped)), &[look_up::run]);
    assert!(report.failures.iter().any(|failure| failure.contains("ties")), "nobody noticed");
}

#[test]
fn halves_that_round_up_are_noticed() {
    let up: fn(&mut Value) = |value| {
        if value.element == Element::I8 {
            value.numbers.iter_mut().filter(|number| **number % 2.0 == 0.0).for_each(|number| *number += 1.0);
        }
    };
    let report = run_parts(&wrong(Fault::Value(up)), &[over_vectors::quantise_ties]);
    assert!(report.failures.iter().any(|failure| failure.contains("ties")), "nobody noticed");
}

#[test]
fn plans_that_break_their_word_are_noticed() {
    let faults = [
        (Fault::Lifo, "order"),
        (Fault::Unsteady, "determinism"),
        (Fault::LateReference, "new reference"),
        (Fault::TakesAll, "wrong batches"),
        (Fault::Truncates, "beyond its limits"),
    ];
    for (fault, noticed) in faults {
        let report = protocol::run_protocol(&wrong(fault));
        let is_noticed = report.failures.iter().any(|failure| failure.contains(noticed));
        assert!(is_noticed, "nobody noticed: {noticed}");
    }
}
