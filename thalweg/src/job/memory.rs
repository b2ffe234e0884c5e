//! What memory a job needs, counted from its file and its graph before anything runs.

use thalweg_engine::Result;
use thalweg_engine::cluster::JobConfig;
use thalweg_engine::graph::Graph;
use thalweg_engine::state::MemoryPlan;

use super::spec::{JobSpec, SinkKind, SourceKind};

/// Divides the job's memory.
///
/// # Errors
/// A user error when the graph cannot be planned or the memory is too small; it says how much is
/// needed.
pub(super) fn divide(spec: &JobSpec, graph: &Graph) -> Result<MemoryPlan> {
    let settings = &spec.settings;
    let config = JobConfig {
        parallelism: settings.parallelism,
        max_parallelism: settings.max_parallelism,
        ..JobConfig::new(&settings.name)
    };
    let tasks = |own: Option<u32>| u64::from(own.unwrap_or(settings.parallelism));
    let sources = spec.sources.iter().filter(|source| matches!(source.spec.kind, SourceKind::Kafka(_)));
    let sinks =
        spec.sinks.iter().filter(|sink| matches!(sink.spec.kind, SinkKind::Kafka(_) | SinkKind::Prism(_)));
    // A source's task bounds its clients of all clusters together.
    let kafka_clients = sources.map(|source| tasks(source.parallelism)).sum::<u64>()
        + sinks.map(|sink| tasks(sink.parallelism)).sum::<u64>();
    crate::run::divide(graph, &config, settings.memory_bytes, kafka_clients)
}
