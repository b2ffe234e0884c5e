//! Top-k against what the definition says, ties, NaN and short matrices among it.

use std::sync::Arc;

use arrow::buffer::ScalarBuffer;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::ReferenceMatrix;

thread_local! {
    /// Queries that were scored by definition.
    pub(super) static BY_DEFINITION: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

const METRICS: [Metric; 3] = [Metric::Dot, Metric::Cosine, Metric::L2];

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
    let scorer = Scorer { reference, metric, query, norm: norm(query) };
    nearest_of_all(Isa::detect(), &scorer, k, &mut all);
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
            for metric in METRICS {
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
        for metric in METRICS {
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

/// Rows of a tight cluster far from the origin.
fn cluster(rng: &mut StdRng, (rows, width): (usize, usize), at: f32, spread: f32) -> Vec<f32> {
    (0..rows * width).map(|_| at + rng.random_range(-spread..spread)).collect()
}

#[test]
fn no_neighbour_is_lost_to_rounding_far_from_the_origin() {
    let mut rng = StdRng::seed_from_u64(4);
    let (rows, width, k) = (2_000, 24, 10);
    let mut two = cluster(&mut rng, (rows / 2, width), 1e4, 0.1);
    two.extend(cluster(&mut rng, (rows / 2, width), -1e4, 0.1));
    let mut with_zeros = cluster(&mut rng, (rows, width), 1e3, 0.1);
    with_zeros[..5 * width].fill(0.0);
    let mut with_giants = cluster(&mut rng, (rows, width), 1.0, 1.0);
    with_giants[width] = 1e11;
    with_giants[99 * width] = -3e9;
    let cases = [
        ("near 1e3", cluster(&mut rng, (rows, width), 1e3, 0.1)),
        ("near 1e4", cluster(&mut rng, (rows, width), 1e4, 0.1)),
        ("two clusters", two),
        ("with zeros", with_zeros),
        ("with giants", with_giants),
    ];
    for (name, vectors) in cases {
        let mut queries = cluster(&mut rng, (6, width), vectors[width * (rows - 1)], 0.1);
        queries.extend(&vectors[7 * width..9 * width]);
        queries.extend(cluster(&mut rng, (2, width), 1e6, 1.0));
        queries.extend(cluster(&mut rng, (2, width), 0.0, 1.0));
        let reference = reference(vectors, width);
        for (isa, metric) in Isa::all().into_iter().flat_map(|isa| METRICS.map(|metric| (isa, metric))) {
            let (ids, scores) = ask(isa, 2, &reference, &queries, metric, k);
            for (index, query) in queries.chunks_exact(width).enumerate() {
                for (place, wanted) in exact(&reference, query, metric, k).iter().enumerate() {
                    let got = (ids[index * k + place], scores[index * k + place]);
                    let wanted = (i64::from(wanted.row) * 10, wanted.score);
                    assert_eq!(got, wanted, "{name}, {isa} {metric:?}, query {index} place {place}");
                }
            }
        }
    }
}

/// The answers, and how many queries were scored by definition.
fn definitions(reference: &Reference, queries: &[f32], metric: Metric, k: usize) -> usize {
    let before = BY_DEFINITION.get();
    let (ids, scores) = ask(Isa::detect(), 1, reference, queries, metric, k);
    for (index, query) in queries.chunks_exact(reference.matrix().width()).enumerate() {
        for (place, wanted) in exact(reference, query, metric, k).iter().enumerate() {
            let got = (ids[index * k + place], scores[index * k + place]);
            assert_eq!(got, (i64::from(wanted.row) * 10, wanted.score), "{metric:?} {index} {place}");
        }
    }
    BY_DEFINITION.get() - before
}

#[test]
fn common_vectors_are_not_scored_by_definition() {
    let mut rng = StdRng::seed_from_u64(5);
    let (rows, width, count) = (5_000, 16, 20);
    let mut random = |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-1.0..1.0)).collect() };
    let few = random(10 * width);
    let copies: Vec<f32> = (0..rows).flat_map(|row| few[row % 10 * width..][..width].to_vec()).collect();
    let whole = |numbers: Vec<f32>| numbers.into_iter().map(|x| (x * 3.0).round()).collect::<Vec<_>>();
    let mut with_giants = random(rows * width);
    with_giants[3 * width] = 1e8;
    // Queries have nothing in common with any vector, and so all score 0.
    let sparse = |rows: usize, place: fn(usize) -> usize| -> Vec<f32> {
        let one = |at: usize| at % width == place(at / width);
        (0..rows * width).map(|at| if one(at) { (1 + at / width) as f32 } else { 0.0 }).collect()
    };
    let (vectors, queries) = (sparse(rows, |row| row % 15), sparse(count, |_| 15));
    let cases = [
        ("random", random(rows * width), random(count * width), &METRICS[..]),
        ("copies", copies, random(count * width), &METRICS[..]),
        ("integers", whole(random(rows * width)), whole(random(count * width)), &[Metric::Dot, Metric::L2]),
        ("giants", with_giants, random(count * width), &METRICS[..]),
        ("nothing in common", vectors, queries, &METRICS[..]),
        ("zero queries", random(rows * width), vec![0.0; width], &[Metric::Dot, Metric::L2]),
    ];
    for (name, vectors, queries, metrics) in cases {
        let reference = reference(vectors, width);
        for metric in metrics {
            assert_eq!(definitions(&reference, &queries, *metric, 10), 0, "{name} {metric:?}");
        }
    }
    // Some hundred other vectors with the same score are looked for again, thousands by definition.
    let ring = |rows: usize| -> Vec<f32> {
        (0..rows).flat_map(|row| [0.3, if row % 2 == 0 { 1.0 } else { -1.0 } * (1.0 + row as f32)]).collect()
    };
    assert_eq!(definitions(&reference(ring(200), 2), &[1.0, 0.0], Metric::Dot, 10), 0);
    assert_eq!(definitions(&reference(ring(5_000), 2), &[0.7, 0.0], Metric::Dot, 10), 1);
}

#[test]
fn what_is_known_of_a_matrix_is_computed_once_for_all_plans() {
    let vectors: Vec<f32> = (0..4_000).map(|x| (x * 37 % 101) as f32).collect();
    let matrix = || {
        let ids = ScalarBuffer::from((0..1_000).collect::<Vec<i64>>());
        Arc::new(ReferenceMatrix::new("r", 4, ScalarBuffer::from(vectors.clone()), ids).unwrap())
    };
    let (prepared, lazy) = (matrix(), matrix());
    prepared.prepare(&[Metric::Dot, Metric::Cosine, Metric::L2]);
    let one = Reference::new(prepared.clone(), &METRICS);
    let total = one.bytes();
    let two = Reference::new(Arc::new(ReferenceMatrix::clone(&prepared)), &[Metric::L2]);
    assert!(METRICS.into_iter().all(|metric| std::ptr::eq(one.terms(metric), two.terms(metric))));
    assert_eq!((one.bytes(), two.bytes()), (total.div_ceil(2), total.div_ceil(2)));
    drop(two);
    assert_eq!(one.bytes(), total);
    // Without it a plan computes what its graph needs, and no more.
    let few = Reference::new(lazy.clone(), &[Metric::Dot]);
    assert!(few.bytes() < total);
    let again = Reference::new(lazy, &[Metric::Dot]);
    assert!(std::ptr::eq(few.terms(Metric::Dot), again.terms(Metric::Dot)));
}
