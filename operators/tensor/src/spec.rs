//! A graph as it is written down, in YAML or JSON: named inputs, steps in order, named outputs.
//!
//! It says no shape that is known from elsewhere: a weight has the shape that stands in its file, a
//! reference matrix its width. What a step may not do is said with the step's place and name.
//!
//! ```
//! use thalweg_tensor::spec::{GraphSpec, Parts};
//!
//! let spec: GraphSpec = serde_json::from_str(r#"{
//!     "inputs": { "x": { "tensor": "f32", "shape": [384] } },
//!     "steps": [
//!         { "name": "y", "op": "l2_normalise", "of": "x" },
//!         { "name": ["values", "scales"], "op": "quantise", "of": "y" }
//!     ],
//!     "outputs": { "embedding": "values", "scale": "scales" }
//! }"#)?;
//! let graph = spec.build(&Parts::default())?;
//! assert_eq!(graph.value(graph.outputs()[0].1).to_string(), "i8[384]");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod build;
mod named;
mod step;

pub use build::Parts;
pub use named::Named;
pub use step::{OneOrMany, OpSpec, Step};

use serde::{Deserialize, Serialize};

use crate::Element;

/// A graph as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphSpec {
    /// The columns that it reads.
    pub inputs: Named<InputSpec>,
    /// The ops, each after those that it reads.
    pub steps: Vec<Step>,
    /// The columns that it makes: an input's or a step's name each.
    pub outputs: Named<String>,
}

/// An input as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "InputFields", into = "InputFields")]
pub enum InputSpec {
    /// `{ tensor: f32, shape: [384] }`; without `shape` a scalar.
    Tensor {
        /// What it is made of.
        element: Element,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// `{ tokens: 512 }`: lists of token ids, each of at most so many.
    Tokens(usize),
    /// `{ text: minilm, length_max: 128 }`: text for the tokenizer of that name, cut to so many tokens.
    Text {
        /// The tokenizer's name.
        tokenizer: String,
        /// Tokens that a row keeps, special ones included.
        length_max: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    tensor: Option<Element>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    length_max: Option<usize>,
}

impl TryFrom<InputFields> for InputSpec {
    type Error = &'static str;

    fn try_from(fields: InputFields) -> Result<InputSpec, &'static str> {
        match fields {
            InputFields { tensor: Some(element), shape, tokens: None, text: None, length_max: None } => {
                Ok(InputSpec::Tensor { element, shape: shape.unwrap_or_default() })
            }
            InputFields { tensor: None, shape: None, tokens: Some(tokens), text: None, length_max: None } => {
                Ok(InputSpec::Tokens(tokens))
            }
            InputFields {
                tensor: None,
                shape: None,
                tokens: None,
                text: Some(tokenizer),
                length_max: Some(length_max),
            } => Ok(InputSpec::Text { tokenizer, length_max }),
            _ => Err("an input is `tensor` with `shape`, `tokens` alone, or `text` with `length_max`"),
        }
    }
}

impl From<InputSpec> for InputFields {
    fn from(input: InputSpec) -> InputFields {
        let none = InputFields { tensor: None, shape: None, tokens: None, text: None, length_max: None };
        match input {
            InputSpec::Tensor { element, shape } => {
                InputFields { tensor: Some(element), shape: Some(shape), ..none }
            }
            InputSpec::Tokens(length_max) => InputFields { tokens: Some(length_max), ..none },
            InputSpec::Text { tokenizer, length_max } => {
                InputFields { text: Some(tokenizer), length_max: Some(length_max), ..none }
            }
        }
    }
}
