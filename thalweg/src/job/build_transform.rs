//! Makes the steps that compute with tensors.

use std::path::PathBuf;

use arrow::datatypes::DataType;
use thalweg_engine::graph::Stream;
use thalweg_engine::record::EdgeSchema;
use thalweg_operators::near_duplicates::NearDuplicates;
use thalweg_operators::tensor::{Artifact, Element, ReferenceSource, SentenceEncoder, Transform};

use crate::config::{Checker, Placed, Text};

use super::build_step::{agrees, apply, column_index};
use super::spec::{Named, StepSpec};
use super::transform_spec::{EmbedSpec, NearDuplicatesSpec, NearestSpec, TransformSpec};

/// The files of a model that are there when the model needs them.
const OPTIONAL_MODEL_FILES: [&str; 3] =
    ["modules.json", "sentence_bert_config.json", "1_Pooling/config.json"];
/// The files that every model has.
const MODEL_FILES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// Makes `embed`.
pub(super) fn build_embed(
    checker: &Checker<'_>,
    step: &Named<StepSpec>,
    spec: &EmbedSpec,
    input: &Stream,
    edge: &EdgeSchema,
) -> Option<Stream> {
    column_index(checker, &spec.column, edge)?;
    let element = if spec.is_half { Element::F16 } else { Element::F32 };
    let opened = model_directory(spec.model.value.as_str())
        .and_then(|directory| SentenceEncoder::open(directory, element).map_err(|error| error.to_string()));
    let encoder = match opened {
        Ok(encoder) => encoder,
        Err(error) => {
            checker.mistake(&spec.model.place, error);
            return None;
        }
    };
    let length_max = spec.length_max.unwrap_or(encoder.length_max());
    let transform = match Transform::embed_cut(spec.column.value.as_str(), &encoder, length_max) {
        Ok(transform) => transform.output("embedding", spec.output.value.as_str()),
        Err(error) => {
            checker.mistake(&spec.model.place, error.to_string());
            return None;
        }
    };
    apply(checker, &step.place, input, edge, configured(transform, &spec.transform))
}

/// A transform with what a job file says of it.
pub(super) fn configured(transform: Transform, spec: &TransformSpec) -> Transform {
    let transform = transform
        .batching(spec.batching.clone())
        .device(spec.device)
        .threads(spec.threads)
        .on_bad_row(spec.on_bad_row)
        .allow_changed_weights(spec.allow_changed_weights);
    match spec.memory {
        Some(bytes) => transform.memory_bytes(usize::try_from(bytes).unwrap_or(usize::MAX)),
        None => transform,
    }
}

/// A local directory with the model's files; what is in an object store is fetched into the cache.
pub(super) fn model_directory(location: &str) -> Result<PathBuf, String> {
    let model = Artifact::new(location);
    let required = MODEL_FILES.map(|name| (name, true)).into_iter();
    let files = required.chain(OPTIONAL_MODEL_FILES.map(|name| (name, false)));
    model.directory(files).map_err(|error| error.to_string())
}

/// Makes `near_duplicates`.
pub(super) fn build_near_duplicates(
    checker: &Checker<'_>,
    step: &Named<StepSpec>,
    spec: &NearDuplicatesSpec,
    input: &Stream,
    edge: &EdgeSchema,
) -> Option<Stream> {
    let named = spec.key_by.iter().chain([&spec.id, &spec.embedding]);
    let found: Vec<_> = named.map(|column: &Placed<Text>| column_index(checker, column, edge)).collect();
    let found: Vec<usize> = found.into_iter().collect::<Option<_>>()?;
    let near = NearDuplicates::new(spec.id.value.as_str(), spec.embedding.value.as_str());
    let near = near.threshold(spec.threshold).keep(spec.keep).keyed_by(&found[..spec.key_by.len()]);
    let near = match spec.within {
        Some(within) => near.within(within),
        None => near,
    };
    agrees(checker, &step.place, &near, edge)?;
    let columns: Vec<&str> = spec.key_by.iter().map(|column| column.value.as_str()).collect();
    let keyed = input.key_by(&columns);
    // Named after the step, so that it does not depend on what else the job has.
    let _ = keyed.stream().clone().uid(&format!("{}.key", step.name));
    Some(keyed.apply(near))
}

/// Makes `nearest`.
pub(super) fn build_nearest(
    checker: &Checker<'_>,
    step: &Named<StepSpec>,
    spec: &NearestSpec,
    input: &Stream,
    edge: &EdgeSchema,
) -> Option<Stream> {
    let column = edge.schema.field(column_index(checker, &spec.embedding, edge)?).data_type();
    let vector = match column {
        DataType::FixedSizeList(item, width) => match item.data_type() {
            DataType::Float32 => Some((Element::F32, *width as usize)),
            DataType::Float16 => Some((Element::F16, *width as usize)),
            _ => None,
        },
        _ => None,
    };
    let Some((element, width)) = vector else {
        let what = format!("column `{}` is {column}, not vectors of f32 or f16", spec.embedding.value);
        checker.mistake(&spec.embedding.place, what);
        return None;
    };
    let file = Artifact::new(spec.references.value.as_str());
    let source = ReferenceSource::Watched { file, every: spec.reload_every };
    let made = Transform::nearest(spec.embedding.value.as_str(), element, width, spec.k, spec.metric);
    let made = made.map(|made| configured(made.reference("references", source), &spec.transform));
    match made.and_then(|made| made.check_references().map(|()| made)) {
        Ok(transform) => apply(checker, &step.place, input, edge, transform),
        Err(error) => {
            checker.mistake(&spec.references.place, error.to_string());
            None
        }
    }
}
