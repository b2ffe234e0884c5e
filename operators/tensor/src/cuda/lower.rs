//! From a graph to a program.

use super::program::Program;
use crate::{Graph, Result};

/// Lowers a graph.
///
/// # Errors
/// When the graph needs more than a device has, whatever the batch.
pub fn lower(graph: &Graph) -> Result<Program> {
    let _ = graph;
    Err(crate::Error::graph("graph", "is not lowered yet"))
}
