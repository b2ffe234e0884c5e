//! What memory a job needs, counted from its graph before anything runs.

use thalweg_engine::Result;
use thalweg_engine::graph::{Graph, NodeKind, Partitioner, Plan};
use thalweg_engine::state::{MemoryPlan, MemoryRequest};

use super::spec::{JobSpec, SinkKind, SourceKind};

/// Files that are uploaded at the same time by one process.
pub(super) const UPLOADS: usize = 4;

/// Divides the job's memory.
///
/// # Errors
/// A user error when the graph cannot be planned or the memory is too small; it says how much is
/// needed.
pub(super) fn divide(spec: &JobSpec, graph: &Graph) -> Result<MemoryPlan> {
    let settings = &spec.settings;
    let plan = Plan::new(graph, settings.parallelism, settings.max_parallelism)?;
    let tasks = |own: Option<u32>| u64::from(own.unwrap_or(settings.parallelism));
    let keyed = graph.nodes.iter().filter(|node| match &node.kind {
        NodeKind::Operator { factory, .. } => factory.is_keyed(),
        NodeKind::Source { .. } => false,
    });
    let keyed_instances = keyed.map(|node| tasks(node.parallelism)).sum();
    let channels = plan.edges.iter().map(|planned| {
        let [from, to] = [planned.from, planned.to]
            .map(|chain| plan.chains.get(chain.0).map_or(1, |chain| u64::from(chain.parallelism)));
        if planned.edge.partitioner == Partitioner::Forward { from } else { from * to }
    });
    let sources = spec.sources.iter().filter(|source| matches!(source.spec.kind, SourceKind::Kafka(_)));
    let sinks =
        spec.sinks.iter().filter(|sink| matches!(sink.spec.kind, SinkKind::Kafka(_) | SinkKind::Prism(_)));
    // A source's task bounds its clients of all clusters together.
    let kafka_clients = sources.map(|source| tasks(source.parallelism)).sum::<u64>()
        + sinks.map(|sink| tasks(sink.parallelism)).sum::<u64>();
    MemoryPlan::divide(MemoryRequest {
        limit_bytes: settings.memory_bytes,
        keyed_instances,
        channels: channels.sum(),
        kafka_clients,
        uploads: UPLOADS as u64,
    })
}
