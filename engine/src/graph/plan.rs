//! The physical plan: which operators are fused into one task, how many tasks there are, and
//! which edges run between them. Pure and deterministic.

use std::collections::BTreeMap;

use super::changelog::partitioner_used;
use super::{Edge, Graph, NodeId, NodeKind, Partitioner};
use crate::operator::OutputIndex;
use crate::{Error, Result};

/// Index of a chain in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ChainId(pub usize);

/// Operators that run in one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedChain {
    /// Its nodes, head first, in topological order.
    pub nodes: Vec<NodeId>,
    /// Edges inside the chain.
    pub inner: Vec<Edge>,
    /// How many tasks it has.
    pub parallelism: u32,
}

/// An edge between two chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedEdge {
    /// The logical edge, with the partitioner that is used.
    pub edge: Edge,
    /// The chain it leaves.
    pub from: ChainId,
    /// The chain it enters.
    pub to: ChainId,
}

/// How a graph is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The chains, in topological order of their heads.
    pub chains: Vec<PlannedChain>,
    /// The edges between them.
    pub edges: Vec<PlannedEdge>,
    /// The number of key groups.
    pub max_parallelism: u32,
}

impl Plan {
    /// Plans `graph` for `parallelism` tasks of each chain that does not say otherwise.
    ///
    /// Two nodes are fused when the second has one input edge, that edge is forward, and both
    /// have one parallelism. A forward edge between different parallelisms is rebalanced.
    ///
    /// # Errors
    /// A user error when a parallelism is beyond `max_parallelism`, or for changelogs that would lose
    /// their order or overwrite each other ([`Graph::changelog_mistakes`]), a line each.
    pub fn new(graph: &Graph, parallelism: u32, max_parallelism: u32) -> Result<Plan> {
        let limit = crate::state::MAX_PARALLELISM_LIMIT;
        if !(1..=limit).contains(&max_parallelism) {
            return Err(Error::user(format!("max_parallelism must be 1 to {limit}, not {max_parallelism}")));
        }
        let of = |node: usize| graph.nodes[node].parallelism.unwrap_or(parallelism).max(1);
        for (index, node) in graph.nodes.iter().enumerate() {
            if of(index) > max_parallelism {
                let wanted = of(index);
                return Err(Error::user(format!(
                    "{}: parallelism {wanted} is beyond max_parallelism {max_parallelism}",
                    node.uid
                )));
            }
        }
        let mistakes: Vec<_> = graph
            .changelog_mistakes(parallelism)
            .into_iter()
            .map(|mistake| format!("{}: {}", graph.nodes[mistake.node.0].uid, mistake.message))
            .collect();
        if !mistakes.is_empty() {
            return Err(Error::user(mistakes.join("\n")));
        }
        let mut chains: Vec<PlannedChain> = Vec::new();
        let mut chain_of: BTreeMap<NodeId, ChainId> = BTreeMap::new();
        let mut edges = Vec::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            let id = NodeId(index);
            let incoming: Vec<_> = graph.edges.iter().filter(|edge| edge.to == id).copied().collect();
            let fused = match (&node.kind, incoming.as_slice()) {
                (NodeKind::Operator { .. }, [edge])
                    if edge.partitioner == Partitioner::Forward && of(edge.from.0) == of(index) =>
                {
                    Some(*edge)
                }
                _ => None,
            };
            if let Some(edge) = fused {
                let chain = chain_of[&edge.from];
                chains[chain.0].nodes.push(id);
                chains[chain.0].inner.push(edge);
                chain_of.insert(id, chain);
                continue;
            }
            let chain = ChainId(chains.len());
            chains.push(PlannedChain { nodes: vec![id], inner: Vec::new(), parallelism: of(index) });
            chain_of.insert(id, chain);
            for mut edge in incoming {
                edge.partitioner = partitioner_used(&edge, of(edge.from.0), of(index));
                edges.push(PlannedEdge { edge, from: chain_of[&edge.from], to: chain });
            }
        }
        Ok(Plan { chains, edges, max_parallelism })
    }

    /// The text that `explain` prints: chains with their operators, and edges.
    pub fn explain(&self, graph: &Graph) -> String {
        let mut text = String::new();
        for (index, chain) in self.chains.iter().enumerate() {
            text.push_str(&format!("chain {index} x {}\n", chain.parallelism));
            for node in &chain.nodes {
                let node = &graph.nodes[node.0];
                text.push_str(&format!("  {}  ({})\n", node.uid, node.name));
                if let Some(identity) = &node.identity {
                    text.push_str(&format!("    state: {identity}\n"));
                }
            }
            for planned in self.edges.iter().filter(|edge| edge.from.0 == index) {
                let PlannedEdge { edge, to, .. } = planned;
                let output = if edge.output == OutputIndex::MAIN {
                    String::new()
                } else {
                    format!(" side output {}", edge.output.0)
                };
                let (from, target) = (&graph.nodes[edge.from.0].uid, &graph.nodes[edge.to.0].uid);
                let partitioner = format!("{:?}", edge.partitioner).to_lowercase();
                text.push_str(&format!("  -> chain {}: {from}{output} -> {target} by {partitioner}\n", to.0));
            }
        }
        text
    }
}
