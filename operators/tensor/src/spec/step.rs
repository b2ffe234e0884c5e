//! One step: an op, what it reads, and what its values are called.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::Element;
use crate::op::{Activation, Metric, Pooling};

/// `{ name: y, op: matmul, of: x, weight: dense.weight }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What its value is called; two names for `quantise` (values, scales) and `top_k` (ids, scores).
    pub name: OneOrMany,
    /// What it reads: inputs and earlier steps, by name.
    pub of: OneOrMany,
    /// What it does.
    pub op: OpSpec,
}

/// A name, or a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// `x`
    One(String),
    /// `[x, y]`
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them.
    pub fn names(&self) -> &[String] {
        match self {
            OneOrMany::One(name) => std::slice::from_ref(name),
            OneOrMany::Many(names) => names,
        }
    }
}

/// An op as it is written down; see [`Op`](crate::op::Op) for what each means. Weights and reference
/// matrices go by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "fields are those of the op")]
pub enum OpSpec {
    Gather {
        table: String,
        #[serde(default = "f32")]
        element: Element,
    },
    Positions {
        table: String,
        #[serde(default = "f32")]
        element: Element,
    },
    #[serde(rename = "matmul")]
    MatMul {
        weight: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bias: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        activation: Option<Activation>,
    },
    Add {},
    AddBias {
        bias: String,
    },
    Activate {
        activation: Activation,
    },
    LayerNorm {
        gamma: String,
        beta: String,
        /// As PyTorch's, where it is not said.
        #[serde(default = "layer_norm_epsilon")]
        epsilon: f32,
    },
    Softmax {},
    /// Of `[query, key, value]`.
    Attention {
        heads: usize,
        #[serde(default)]
        causal: bool,
    },
    Pool {
        pooling: Pooling,
    },
    #[serde(rename = "l2_normalise")]
    L2Normalise {},
    Quantise {},
    /// Of `[values, scales]`.
    Dequantise {
        to: Element,
    },
    Cast {
        to: Element,
    },
    Concat {},
    Slice {
        start: usize,
        length: usize,
    },
    TopK {
        reference: String,
        metric: Metric,
        k: usize,
    },
    MinHash {
        hashes: usize,
        #[serde(default)]
        seed: u64,
    },
    SimHash {
        words: usize,
        #[serde(default)]
        seed: u64,
    },
    FeatureHash {
        width: usize,
        #[serde(default)]
        seed: u64,
    },
    Bucketise {
        boundaries: Vec<f32>,
    },
    Standardise {
        mean: String,
        deviation: String,
    },
    /// A whole sentence encoder, by name: token ids in, an embedding out.
    Encode {
        model: String,
    },
}

fn f32() -> Element {
    Element::F32
}

fn layer_norm_epsilon() -> f32 {
    1e-5
}

// `flatten` would let unknown fields pass, so a step takes its own two out and leaves the rest to the
// op.
impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Step, D::Error> {
        let mut fields = Map::<String, Value>::deserialize(deserializer)?;
        let mut take = |key: &'static str| {
            let value = fields.remove(key).ok_or_else(|| D::Error::missing_field(key))?;
            OneOrMany::deserialize(value)
                .map_err(|_| D::Error::custom(format!("`{key}` is neither a name nor a list of names")))
        };
        let (name, of) = (take("name")?, take("of")?);
        let shown = name.names().join(", ");
        let op = OpSpec::deserialize(Value::Object(fields))
            .map_err(|error| D::Error::custom(format!("step `{shown}`: {error}")))?;
        Ok(Step { name, of, op })
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Map::new();
        let json = |error: serde_json::Error| S::Error::custom(error.to_string());
        fields.insert("name".to_owned(), serde_json::to_value(&self.name).map_err(json)?);
        fields.insert("of".to_owned(), serde_json::to_value(&self.of).map_err(json)?);
        if let Value::Object(op) = serde_json::to_value(&self.op).map_err(json)? {
            fields.extend(op);
        }
        fields.serialize(serializer)
    }
}
