//! Makes `kind: tensor`: opens what the graph's steps name, and checks every step against it.

use std::path::PathBuf;
use std::sync::Arc;

use thalweg_engine::graph::Stream;
use thalweg_engine::record::EdgeSchema;
use thalweg_operators::tensor::spec::Parts;
use thalweg_operators::tensor::thalweg_tensor::Error as TensorError;
use thalweg_operators::tensor::{
    Artifact, Element, Graph, ReferenceMatrix, ReferenceSource, SentenceEncoder, Tokenizer, Transform,
    Weights,
};

use crate::config::{Checker, Place, Placed, Text};

use super::build_step::apply;
use super::build_transform::{configured, model_directory};
use super::spec::{Named, StepSpec};
use super::transform_spec::TensorSpec;

/// What the steps of a graph name, opened.
struct Opened {
    weights: Weights,
    tokenizers: Vec<(String, Tokenizer)>,
    encoders: Vec<(String, SentenceEncoder)>,
    references: Vec<Arc<ReferenceMatrix>>,
}

/// Makes the step; `None` after a mistake.
pub(super) fn build_tensor(
    checker: &Checker<'_>,
    step: &Named<StepSpec>,
    spec: &TensorSpec,
    input: &Stream,
    edge: &EdgeSchema,
) -> Option<Stream> {
    let opened = open(checker, spec)?;
    let graph = build_graph(checker, step, spec, &opened)?;
    let mut weights = opened.weights;
    for (_, encoder) in &opened.encoders {
        if let Err(error) = weights.merge(encoder.weights()) {
            checker.mistake(&step.place, error.to_string());
            return None;
        }
    }
    let mut transform = configured(Transform::new(graph, weights), &spec.transform);
    let of_models = opened.encoders.iter().map(|(name, encoder)| (name.clone(), encoder.tokenizer().clone()));
    for (name, tokenizer) in of_models.chain(opened.tokenizers) {
        transform = transform.tokenizer(name, tokenizer);
    }
    for (name, file) in &spec.references {
        let file = Artifact::new(file.value.as_str());
        transform = transform.reference(name, ReferenceSource::Watched { file, every: spec.reload_every });
    }
    if let Err(error) = transform.check_references() {
        checker.mistake(&step.place, error.to_string());
        return None;
    }
    apply(checker, &step.place, input, edge, transform)
}

fn open(checker: &Checker<'_>, spec: &TensorSpec) -> Option<Opened> {
    let element = if spec.is_half { Element::F16 } else { Element::F32 };
    let mut weights = Weights::default();
    let mut good = true;
    for file in &spec.weights {
        let added = local(file.value.as_str())
            .and_then(|path| Weights::open([path]).map_err(|error| error.to_string()))
            .and_then(|more| weights.merge(&more).map_err(|error| error.to_string()));
        good &= said(checker, &file.place, added).is_some();
    }
    let tokenizers = each(checker, &spec.tokenizers, |_, location| {
        Tokenizer::from_file(local(location)?).map_err(|error| error.to_string())
    });
    let encoders = each(checker, &spec.models, |_, location| {
        SentenceEncoder::open(model_directory(location)?, element).map_err(|error| error.to_string())
    });
    let references = each(checker, &spec.references, |name, location| {
        ReferenceMatrix::open(name, local(location)?).map_err(|error| error.to_string())
    });
    let references = references?.into_iter().map(|(_, matrix)| Arc::new(matrix)).collect();
    let (tokenizers, encoders) = (tokenizers?, encoders?);
    good.then_some(Opened { weights, tokenizers, encoders, references })
}

/// A local file; one of an object store is fetched into the cache.
fn local(location: &str) -> Result<PathBuf, String> {
    Artifact::new(location).path().map_err(|error| error.to_string())
}

fn each<T>(
    checker: &Checker<'_>,
    named: &[(String, Placed<Text>)],
    open: impl Fn(&str, &str) -> Result<T, String>,
) -> Option<Vec<(String, T)>> {
    let opened = named.iter().map(|(name, location)| {
        let thing = said(checker, &location.place, open(name, location.value.as_str()))?;
        Some((name.clone(), thing))
    });
    let opened: Vec<Option<(String, T)>> = opened.collect();
    opened.into_iter().collect()
}

fn said<T>(checker: &Checker<'_>, place: &Place, result: Result<T, String>) -> Option<T> {
    result.map_err(|error| checker.mistake(place, error)).ok()
}

/// Checks the graph; a step that does not fit is said where it stands.
fn build_graph(
    checker: &Checker<'_>,
    step: &Named<StepSpec>,
    spec: &TensorSpec,
    opened: &Opened,
) -> Option<Graph> {
    let parts = Parts {
        weights: Some(&opened.weights),
        references: &opened.references,
        encoders: opened.encoders.iter().map(|(name, encoder)| (name.as_str(), encoder)).collect(),
    };
    match spec.graph.build(&parts) {
        Ok(graph) => Some(graph),
        Err(error) => {
            let index = match error {
                TensorError::Graph { step, .. } => step,
                _ => None,
            };
            let place = index.and_then(|index| spec.step_places.get(index)).unwrap_or(&step.place);
            checker.mistake(place, error.to_string());
            None
        }
    }
}
