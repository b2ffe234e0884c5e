//! Sentence encoders against what `sentence-transformers` makes of the same files and sentences
//! (`dev/sentence-embeddings.py` wrote that down).

use std::path::{Path, PathBuf};

use thalweg_tensor::{Backend, Element, Result, SentenceEncoder, TensorBatch, Weights};

use crate::cases::FLOATS;
use crate::suite::{Report, limits, next};

/// `tests/data`, or what `THALWEG_TEST_DATA` names: a program that was copied to another machine has
/// it elsewhere.
fn data(file: &str) -> String {
    let directory = std::env::var("THALWEG_TEST_DATA");
    let directory =
        directory.unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data").to_owned());
    format!("{directory}/{file}")
}

/// The least cosine that an embedding may have with the expected one.
fn cosine_min(element: Element) -> f64 {
    if element == Element::F16 { 0.999 } else { 0.9999 }
}

pub fn sentences() -> Vec<String> {
    let text = std::fs::read_to_string(data("sentences.txt")).unwrap();
    text.split_terminator('\n').map(str::to_owned).collect()
}

/// A model of random weights, written here.
pub fn run_random_model(backend: &dyn Backend) -> Report {
    let directory = tempfile::tempdir().unwrap();
    thalweg_tensor::random_encoder::RandomEncoder::default().write(directory.path()).unwrap();
    run_model(backend, directory.path(), "random-encoder.safetensors")
}

/// Where `make fetch-models` puts all-MiniLM-L6-v2, if it is there.
pub fn minilm() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = set("THALWEG_CACHE").or_else(|| {
        Some(set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?.join("thalweg"))
    })?;
    let directory = cache.join("minilm-0.1.0");
    directory.join("complete").exists().then_some(directory)
}

/// The model in that directory, in `f32` and `f16`.
pub fn run_model(backend: &dyn Backend, directory: &Path, fixture: &str) -> Report {
    let mut report = Report::default();
    for element in FLOATS {
        report.batches += 1;
        match least_cosine(backend, directory, fixture, element) {
            Ok((least, at)) if least < cosine_min(element) => {
                report.fail(format!("{fixture} in {element}: cosine {least} of sentence {at}"));
            }
            Ok((least, at)) => {
                println!(
                    "{}, {fixture} in {element}: least cosine {least:.9} (sentence {at})",
                    backend.device()
                );
            }
            Err(error) => report.fail(format!("{fixture} in {element}: {error}")),
        }
    }
    report
}

/// The least cosine with the expected embedding, and of which sentence.
fn least_cosine(
    backend: &dyn Backend,
    directory: &Path,
    fixture: &str,
    element: Element,
) -> Result<(f64, usize)> {
    let sentences = sentences();
    let encoder = SentenceEncoder::open(directory, element)?;
    let expected = Weights::open([data(fixture)])?.to_f32("embeddings")?;
    assert_eq!(expected.len(), sentences.len() * encoder.width());
    let mut plan = backend.compile(&encoder.graph()?, encoder.weights(), &[], &limits())?;
    let text = encoder.tokenizer().encoder(encoder.length_max(), 2)?;
    let mut cosines = Vec::new();
    for (part, expected) in sentences.chunks(48).zip(expected.chunks(48 * encoder.width())) {
        let rows: Vec<Option<&str>> = part.iter().map(|sentence| Some(sentence.as_str())).collect();
        plan.submit(TensorBatch { rows: rows.len(), tensors: vec![text.encode_rows(&rows)?] })?;
        let got = next(&mut *plan)?.tensors.remove(0);
        let got: Vec<f64> = crate::compare::numbers(&got);
        let pairs = got.chunks(encoder.width()).zip(expected.chunks(encoder.width()));
        cosines.extend(pairs.map(|(got, expected)| cosine(got, expected)));
    }
    let least = cosines.iter().enumerate().min_by(|left, right| left.1.total_cmp(right.1));
    Ok(least.map_or((0.0, 0), |(at, least)| (*least, at)))
}

fn cosine(left: &[f64], right: &[f32]) -> f64 {
    let (mut dot, mut left_square, mut right_square) = (0.0, 0.0, 0.0);
    for (&l, &r) in left.iter().zip(right) {
        let r = f64::from(r);
        dot += l * r;
        left_square += l * l;
        right_square += r * r;
    }
    dot / (left_square * right_square).sqrt()
}

/// Sentences become the very tokens that they become in Python, as many as `lengths` says.
#[test]
fn sentences_have_the_expected_lengths() {
    let directory = tempfile::tempdir().unwrap();
    thalweg_tensor::random_encoder::RandomEncoder::default().write(directory.path()).unwrap();
    let random = ("random-encoder.safetensors", directory.path().to_owned());
    let minilm = minilm().map(|directory| ("minilm.safetensors", directory));
    for (fixture, directory) in std::iter::once(random).chain(minilm) {
        let encoder = SentenceEncoder::open(directory, Element::F32).unwrap();
        let bytes = std::fs::read(data(fixture)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let lengths = file.tensor("lengths").unwrap().data().to_vec();
        let expected: Vec<i32> =
            lengths.chunks(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let sentences = sentences();
        let rows: Vec<Option<&str>> = sentences.iter().map(|sentence| Some(sentence.as_str())).collect();
        for threads in [1, 2] {
            let text = encoder.tokenizer().encoder(encoder.length_max(), threads).unwrap();
            let tokens = text.encode_rows(&rows).unwrap();
            let lengths: Vec<i32> =
                tokens.offsets().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert_eq!(lengths, expected, "{fixture}, {threads} threads");
        }
    }
}
