//! What can go wrong, and whose it is.

/// The result of what can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a transform.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A graph that cannot be: names the op and the shapes that do not fit.
    #[error("op `{op}`: {reason}")]
    Graph {
        /// The op's name in the graph.
        op: String,
        /// Of a graph that was written down: which of its steps it is, counted from 0.
        step: Option<usize>,
        /// What does not fit, with both shapes.
        reason: String,
    },
    /// Weights, a reference matrix or a tokenizer that do not fit the graph or cannot be read.
    #[error("{what}: {reason}")]
    Weights {
        /// The file or tensor.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A batch that is not of the graph's input types.
    #[error("input `{input}`: {reason}")]
    Input {
        /// The input's name.
        input: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The batch does not fit into what the plan may use, not even in halves.
    #[error("out of memory on {device}: {reason}")]
    OutOfMemory {
        /// The device.
        device: String,
        /// What was asked for and what there is, in bytes.
        reason: String,
    },
    /// The device or its driver failed; another try needs a new plan.
    #[error("device {device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// What the driver says.
        reason: String,
    },
    /// A file or an object store.
    #[error("{what}: {source}")]
    Io {
        /// The path.
        what: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    pub(crate) fn graph(op: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Graph { op: op.into(), step: None, reason: reason.into() }
    }

    pub(crate) fn weights(what: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Weights { what: what.into(), reason: reason.into() }
    }

    pub(crate) fn input(input: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Input { input: input.into(), reason: reason.into() }
    }
}
