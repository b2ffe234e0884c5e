//! Nodes and edges, and the graph's fingerprint.

use std::sync::Arc;

use super::{Expression, Uid};
use crate::checkpoint::JobState;
use crate::operator::{OperatorFactory, OutputIndex};
use crate::record::EdgeSchema;
use crate::sink::Committer;
use crate::source::Source;
use crate::state::StateIdentity;
use crate::time::WatermarkStrategy;

/// Index of a node in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// How rows find their target among the subtasks of the next node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Partitioner {
    /// Subtask i to subtask i; the parallelism is the same.
    Forward,
    /// By the key group of the row's key hash.
    Hash,
    /// Batches in turn.
    Rebalance,
    /// Every row to all.
    Broadcast,
}

/// One node's output to another's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Where rows come from.
    pub from: NodeId,
    /// Which of its outputs.
    pub output: OutputIndex,
    /// Where they go.
    pub to: NodeId,
    /// Which of its inputs; several edges may feed one input (union).
    pub input: usize,
    /// How they find their target.
    pub partitioner: Partitioner,
}

/// What a node does.
#[derive(Clone)]
pub enum NodeKind {
    /// Makes rows.
    Source {
        /// The source.
        source: Arc<dyn Source>,
        /// Appends a computed event-time column of this name.
        event_time: Option<(String, Arc<dyn Expression>)>,
        /// How each split's watermark is made; `None`: the source has no event time.
        watermarks: Option<WatermarkStrategy>,
    },
    /// Takes and makes rows; a sink takes only.
    Operator {
        /// Makes the instances.
        factory: Arc<dyn OperatorFactory>,
        /// Commits what the instances prepare, when this is a two-phase sink.
        committer: Option<Arc<dyn Committer>>,
    },
}

impl NodeKind {
    /// The columns, by index, whose hashes the node's rows carry, when it is the one that hashes them.
    pub fn hashed_by(&self) -> Option<&[usize]> {
        match self {
            NodeKind::Source { .. } => None,
            NodeKind::Operator { factory, .. } => factory.hashed_by(),
        }
    }
}

/// A node of the logical graph.
#[derive(Clone)]
pub struct Node {
    /// Its stable name.
    pub uid: Uid,
    /// Uids that it had in earlier versions of the job: where else its state may be.
    pub uids_before: Vec<Uid>,
    /// The uid that earlier versions of the engine would have derived; `None` when it has a name.
    pub uid_by_place: Option<Uid>,
    /// What it is, for people.
    pub name: String,
    /// What its state is; `None` when it has none.
    pub identity: Option<StateIdentity>,
    /// What it does.
    pub kind: NodeKind,
    /// Its own parallelism; `None`: the job's.
    pub parallelism: Option<u32>,
    /// The schemas of its outputs, main first.
    pub outputs: Vec<EdgeSchema>,
    /// How many logical inputs it has.
    pub inputs: usize,
}

/// A job's logical graph. Nodes are in topological order.
#[derive(Clone, Default)]
pub struct Graph {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// The edges.
    pub edges: Vec<Edge>,
}

impl Graph {
    /// The operators that have state, in the order of the graph.
    pub fn states(&self) -> Vec<JobState> {
        let state = |node: &Node| {
            Some(JobState {
                uid: node.uid.clone(),
                identity: node.identity.clone()?,
                uids_before: node.uids_before.clone(),
                uid_by_place: node.uid_by_place.clone(),
            })
        };
        self.nodes.iter().filter_map(state).collect()
    }

    /// A hash of what matters for state and wiring: uids, kinds, schemas and edges. The same in
    /// every process that builds the same job.
    pub fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        for node in &self.nodes {
            let description = match &node.kind {
                NodeKind::Source { source, event_time, watermarks } => {
                    let time = event_time.as_ref().map(|(name, expression)| (name, expression.describe()));
                    format!("{} {time:?} {watermarks:?}", source.describe())
                }
                NodeKind::Operator { factory, .. } => factory.describe(),
            };
            let schemas: Vec<_> =
                node.outputs.iter().map(|output| (&output.schema, output.time, &output.mode)).collect();
            text.push_str(&format!("{}|{description}|{:?}|{schemas:?}\n", node.uid, node.parallelism));
        }
        text.push_str(&format!("{:?}", self.edges));
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }
}
