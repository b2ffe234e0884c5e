//! What a job file says of tensor transforms.

use thalweg_operators::tensor::op::Metric;
use thalweg_operators::tensor::spec::GraphSpec;
use thalweg_operators::tensor::{Batching, DeviceChoice, OnBadRow};

use crate::config::{Place, Placed, Text};

/// What all transforms have in common.
#[derive(Clone, Debug)]
pub struct TransformSpec {
    /// `batch`, `max_bytes`, `max_delay`, `buckets`, `ordered`, `in_flight`.
    pub batching: Batching,
    /// `device`.
    pub device: DeviceChoice,
    /// `threads`: of each instance, on the CPU.
    pub threads: usize,
    /// `memory`: of each instance, in bytes.
    pub memory: Option<u64>,
    /// `on_bad_row`.
    pub on_bad_row: OnBadRow,
    /// `allow_changed_weights`.
    pub allow_changed_weights: bool,
}

/// `kind: embed`: text to a vector, by a BERT-type encoder.
#[derive(Clone, Debug)]
pub struct EmbedSpec {
    /// The column of text.
    pub column: Placed<Text>,
    /// The column of vectors that is made.
    pub output: Placed<Text>,
    /// A directory, or a prefix of an object store, with `config.json`, `tokenizer.json` and
    /// `model.safetensors`.
    pub model: Placed<Text>,
    /// Whether it is computed in `f16`.
    pub is_half: bool,
    /// Tokens that a row keeps; `None`: as many as the model takes.
    pub length_max: Option<usize>,
    /// The rest.
    pub transform: TransformSpec,
}

/// `kind: near_duplicates`.
#[derive(Clone, Debug)]
pub struct NearDuplicatesSpec {
    /// The key's columns.
    pub key_by: Vec<Placed<Text>>,
    /// The column that names rows.
    pub id: Placed<Text>,
    /// The column of vectors.
    pub embedding: Placed<Text>,
    /// The least cosine.
    pub threshold: f32,
    /// How many are remembered of a key.
    pub keep: usize,
    /// For how long, in microseconds.
    pub within: Option<i64>,
}

/// `kind: nearest`: the nearest of a reference matrix.
#[derive(Clone, Debug)]
pub struct NearestSpec {
    /// The column of vectors.
    pub embedding: Placed<Text>,
    /// The matrix: a safetensors file, or a directory or prefix whose last file counts (it ends with
    /// `/`).
    pub references: Placed<Text>,
    /// How often it is looked at for a new version, in microseconds; `None`: never.
    pub reload_every: Option<i64>,
    /// How many.
    pub k: usize,
    /// What near means.
    pub metric: Metric,
    /// The rest.
    pub transform: TransformSpec,
}

/// `kind: tensor`: a graph of ops as it is written down.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// `inputs`, `steps` and `outputs`.
    pub graph: GraphSpec,
    /// Where each of the graph's steps stands.
    pub step_places: Vec<Place>,
    /// `weights`: safetensors files.
    pub weights: Vec<Placed<Text>>,
    /// `tokenizers`: `tokenizer.json` files, by the names that text inputs call them by.
    pub tokenizers: Vec<(String, Placed<Text>)>,
    /// `models`: directories of encoders, by the names of their tokenizers and of `encode` steps.
    pub models: Vec<(String, Placed<Text>)>,
    /// `references`: safetensors files with `vectors` and, perhaps, `ids`.
    pub references: Vec<(String, Placed<Text>)>,
    /// Whether the models are computed in `f16`.
    pub is_half: bool,
    /// How often the references are looked at for new versions, in microseconds; `None`: never.
    pub reload_every: Option<i64>,
    /// The rest.
    pub transform: TransformSpec,
}
