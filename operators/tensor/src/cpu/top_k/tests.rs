//! Top-k against what the definition says, ties, NaN and short matrices among it.

use std::sync::Arc;

use arrow::buffer::ScalarBuffer;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::ReferenceMatrix;

fn reference(vectors: Vec<f32>, width: usize) -> Reference {
    let ids: Vec<i64> = (0..(vectors.len() / width) as i64).map(|row| row * 10).collect();
    let matrix =
        ReferenceMatrix::new("r", width, ScalarBuffer::from(vectors), ScalarBuffer::from(ids)).unwrap();
    Reference::new(Arc::new(matrix), &[Metric::Dot, Metric::Cosine, Metric::L2])
}

fn ask(
    isa: Isa,
    threads: usize,
    reference: &Reference,
    queries: &[f32],
    metric: Metric,
    k: usize,
) -> (Vec<i64>, Vec<f32>) {
    let count = queries.len() / reference.matrix().width();
    let (mut ids, mut scores) = (vec![77; count * k], vec![77.0; count * k]);
    let ask = Ask { queries, metric, k, ids: &mut ids, scores: &mut scores };
    TopKScratch::default().run(isa, &Pool::new(threads).unwrap(), reference, ask, usize::MAX);
    (ids, scores)
}

/// All rows in order, by definition.
fn exact(reference: &Reference, query: &[f32], metric: Metric, k: usize) -> Vec<Scored> {
    let mut all = Vec::new();
    Scorer { reference, metric, query, norm: exact::norm(query) }.all(k, &mut all);
    all
}

#[test]
fn a_scan_finds_what_the_definition_finds() {
    let mut rng = StdRng::seed_from_u64(3);
    for isa in Isa::all() {
        for (rows, width, queries, k) in
            [(1, 1, 1, 1), (7, 3, 5, 10), (500, 33, 49, 7), (3_000, 48, 100, 100), (1_100, 16, 1, 1_024)]
        {
            let mut random =
                |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
            let reference = reference(random(rows * width), width);
            let queries = random(queries * width);
            for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
                let (ids, scores) = ask(isa, 1, &reference, &queries, metric, k);
                for threads in [2, 3] {
                    let (ids2, scores2) = ask(isa, threads, &reference, &queries, metric, k);
                    assert_eq!(ids, ids2);
                    let bits = |scores: &[f32]| scores.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&scores), bits(&scores2));
                }
                for (index, query) in queries.chunks_exact(width).enumerate() {
                    let wanted = exact(&reference, query, metric, k);
                    let found = ids[index * k..].iter().zip(&scores[index * k..]).take(k);
                    for (place, (id, score)) in found.enumerate() {
                        match wanted.get(place) {
                            Some(wanted) => {
                                assert_eq!(
                                    (*id, *score),
                                    (i64::from(wanted.row) * 10, wanted.score),
                                    "{metric:?}"
                                );
                            }
                            None => assert!(*id == -1 && score.is_nan()),
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn of_equal_scores_the_earlier_row_comes_first() {
    for isa in Isa::all() {
        // 400 copies of 3 vectors: each is found by its first rows.
        let vectors: Vec<f32> =
            (0..400).flat_map(|_| [1.0, 2.0, 3.0, 0.5, -1.0, 4.0, 3.0, 2.0, 1.0]).collect();
        let reference = reference(vectors, 3);
        let (ids, _) = ask(isa, 2, &reference, &[3.0, 2.0, 1.0], Metric::L2, 5);
        assert_eq!(ids, [20, 50, 80, 110, 140], "{isa}");
        let (ids, scores) = ask(isa, 2, &reference, &[0.0, 0.0, 0.0], Metric::Cosine, 4);
        assert_eq!((ids, scores), (vec![0, 10, 20, 30], vec![0.0; 4]));
        let (ids, _) = ask(isa, 2, &reference, &[0.0, 0.0, 0.0], Metric::Dot, 4);
        assert_eq!(ids, [0, 10, 20, 30]);
    }
}

#[test]
fn what_is_no_number_comes_last_and_touches_no_other_query() {
    for isa in Isa::all() {
        let reference = reference(vec![f32::NAN, 1.0, 1.0, 1.0, 0.0, 0.0, f32::INFINITY, 0.0, 1e30, 1e30], 2);
        let queries = [1.0, 1.0, f32::NAN, 0.0, f32::INFINITY, 1.0, 0.0, 0.0];
        for metric in [Metric::Dot, Metric::Cosine, Metric::L2] {
            let (ids, scores) = ask(isa, 1, &reference, &queries, metric, 6);
            for (index, query) in queries.chunks_exact(2).enumerate() {
                let wanted = exact(&reference, query, metric, 6);
                for place in 0..6 {
                    let (id, score) = (ids[index * 6 + place], scores[index * 6 + place]);
                    let context = format!("{isa} {metric:?} query {index} place {place}: {id} {score}");
                    match wanted.get(place) {
                        None => assert!(id == -1 && score.is_nan(), "{context}"),
                        Some(wanted) => {
                            assert_eq!(id, i64::from(wanted.row) * 10, "{context}");
                            assert!(
                                score == wanted.score || score.is_nan() && wanted.score.is_nan(),
                                "{context}"
                            );
                        }
                    }
                }
            }
        }
        let (ids, scores) = ask(isa, 1, &reference, &queries[..2], Metric::Dot, 6);
        assert_eq!(ids, [30, 40, 10, 20, 0, -1], "infinite, 2e30, 2, 0, NaN, nothing");
        assert!(scores[4].is_nan());
    }
}

#[test]
fn near_vectors_far_from_the_origin_are_told_apart() {
    // |q - r|^2 of 1e-6 beside |q|^2 of 3e6: nothing is left of it in 2qr - |r|^2.
    let vectors: Vec<f32> = (0..40).flat_map(|row| [1000.0, 1000.0 + row as f32 * 1e-3, 1000.0]).collect();
    let reference = reference(vectors, 3);
    for isa in Isa::all() {
        let (ids, scores) = ask(isa, 1, &reference, &[1000.0, 1000.0, 1000.0], Metric::L2, 3);
        assert_eq!(ids, [0, 10, 20], "{isa} {scores:?}");
    }
}
