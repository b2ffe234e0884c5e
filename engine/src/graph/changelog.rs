//! Whether changelogs keep their meaning on every edge of a graph. Pure; every plan passes it.
//!
//! The rules: the versions of a row of an upsert stream, and the rows of a retract stream, go
//! through one task at each step, so that they stay in their order. So such a stream is never dealt
//! in turn over several tasks; it is keyed by columns of its own key only (an upsert's, for what is
//! taken back carries its old values along); and streams whose keys may be the same are not united.

use super::{Edge, Graph, NodeId, Partitioner};
use crate::record::{EdgeSchema, Mode, OP_COLUMN};

/// What is wrong with the edges into a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangelogMistake {
    /// The node.
    pub node: NodeId,
    /// What is wrong, and what to do.
    pub message: String,
}

/// How an edge's rows find their target when its ends have these parallelisms: a forward edge
/// between different ones deals its batches in turn.
pub(super) fn partitioner_used(edge: &Edge, from: u32, to: u32) -> Partitioner {
    match edge.partitioner {
        Partitioner::Forward if from != to => Partitioner::Rebalance,
        other => other,
    }
}

impl Graph {
    /// Every edge whose mode, key and partitioner do not agree, when each node that does not say
    /// otherwise has `parallelism` tasks.
    pub fn changelog_mistakes(&self, parallelism: u32) -> Vec<ChangelogMistake> {
        let of = |node: NodeId| self.nodes[node.0].parallelism.unwrap_or(parallelism).max(1);
        let mut mistakes = Vec::new();
        for (index, edge) in self.edges.iter().enumerate() {
            let Some(stream) = self.stream_of(edge) else { continue };
            let message = self
                .dealt(edge, stream, of(edge.from), of(edge.to))
                .or_else(|| self.keyed(edge, stream))
                .or_else(|| self.united(index, stream));
            mistakes.extend(message.map(|message| ChangelogMistake { node: edge.to, message }));
        }
        mistakes
    }

    fn stream_of(&self, edge: &Edge) -> Option<&EdgeSchema> {
        self.nodes[edge.from.0].outputs.get(usize::from(edge.output.0))
    }

    /// Whether the edge deals rows over tasks whatever their key is.
    fn dealt(&self, edge: &Edge, stream: &EdgeSchema, from: u32, to: u32) -> Option<String> {
        let is_dealt = to > 1 && partitioner_used(edge, from, to) == Partitioner::Rebalance;
        if stream.mode == Mode::Append || !is_dealt {
            return None;
        }
        Some(format!(
            "its input is {}, and from {from} to {to} tasks its batches would be dealt in turn: the rows \
             of a key would lose their order; give it the parallelism of the step before it ({from}), or 1",
            stream.mode
        ))
    }

    /// Whether the edge parts rows by something else than the changelog's key.
    fn keyed(&self, edge: &Edge, stream: &EdgeSchema) -> Option<String> {
        if stream.mode == Mode::Append || edge.partitioner != Partitioner::Hash {
            return None;
        }
        let keyed_by = match self.nodes[edge.from.0].kind.hashed_by() {
            Some(columns) => columns.iter().map(|&column| stream.schema.field(column).name().as_str()),
            None => return Some(format!("its input is {}; key it right before this step", stream.mode)),
        };
        let foreign: Vec<&str> = match &stream.mode {
            Mode::Append => return None,
            Mode::Upsert(key) => keyed_by.filter(|name| !key.iter().any(|column| column == name)).collect(),
            Mode::Retract => keyed_by.filter(|name| *name == OP_COLUMN).collect(),
        };
        if foreign.is_empty() {
            return None;
        }
        Some(format!(
            "its input is {}, and it is keyed by {}: the versions of a row would go to different tasks, \
             and the older ones stay there; key it by columns of its own key",
            stream.mode,
            foreign.join(", ")
        ))
    }

    /// Whether an edge before this one feeds the same input with what does not go together.
    fn united(&self, index: usize, stream: &EdgeSchema) -> Option<String> {
        let edge = &self.edges[index];
        let same_input = |other: &&Edge| (other.to, other.input) == (edge.to, edge.input);
        let first = self.stream_of(self.edges[..index].iter().find(same_input)?)?;
        if first.mode != stream.mode {
            return Some(format!(
                "it unites a stream that is {} with one that is {}",
                first.mode, stream.mode
            ));
        }
        match &stream.mode {
            Mode::Upsert(_) => Some(format!(
                "it unites streams that are {}: a row of one would replace a row of the other that has the \
                 same key; unite what they are made of, or end each in a sink of its own",
                stream.mode
            )),
            Mode::Append | Mode::Retract => None,
        }
    }
}

#[cfg(test)]
#[path = "changelog_tests.rs"]
mod tests;
