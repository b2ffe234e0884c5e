//! The logical graph of a job: nodes with stable uids, edges with partitioners, and the streams
//! that a program builds it with. Building it has no effect on the world; every process that runs
//! the same program builds the same graph, and the fingerprint says so.

mod changelog;
mod derived_uid;
mod expression;
mod logical;
mod plan;
mod stream;
#[cfg(test)]
mod tests;
mod uid;

pub use changelog::ChangelogMistake;
pub use expression::Expression;
pub use logical::{Edge, Graph, Node, NodeId, NodeKind, Partitioner};
pub use plan::{ChainId, Plan, PlannedChain, PlannedEdge};
pub use stream::{Environment, KeyedStream, Stream};
pub use uid::Uid;
