//! Makes the engine's graph of a specification: here names become streams and expressions meet
//! schemas, so that a wrong column is a mistake with a line, not a job that fails.

use std::collections::BTreeMap;

use thalweg_engine::graph::{Environment, Graph, Stream};
use thalweg_engine::record::EdgeSchema;
use thalweg_engine::state::MemoryPlan;

use crate::config::Checker;

use super::build_sink::build_sink;
use super::build_source::build_source;
use super::build_step::build_step;
use super::spec::{InputSpec, JobSpec, Named};

/// Builds the graph; `None` after mistakes. `order` is the order of the steps; `memory` says what
/// each connector may hold, once it is known.
pub(super) fn build(
    checker: &Checker<'_>,
    job: &JobSpec,
    order: &[usize],
    memory: Option<&MemoryPlan>,
) -> Option<Graph> {
    let before = checker.count();
    let mut builder = Builder { environment: Environment::new(), streams: BTreeMap::new() };
    for source in &job.sources {
        if let Some(stream) = build_source(checker, &builder.environment, source, memory) {
            builder.finish(source, stream);
        }
    }
    for step in order.iter().filter_map(|&index| job.steps.get(index)) {
        if let Some(inputs) = builder.inputs(&step.spec.inputs)
            && let Some(stream) = build_step(checker, step, &inputs)
        {
            builder.finish(step, stream);
        }
    }
    for sink in &job.sinks {
        if let Some(inputs) = builder.inputs(&sink.spec.inputs)
            && let Some(input) = inputs.first()
            && let Some(stream) = build_sink(checker, sink, input, memory)
        {
            builder.finish(sink, stream);
        }
    }
    if checker.count() > before || before > 0 {
        return None;
    }
    match builder.environment.build() {
        Ok(graph) => check_changelogs(checker, job, graph),
        Err(error) => {
            checker.mistake(&Default::default(), error.to_string());
            None
        }
    }
}

/// The graph, when no changelog would lose its order or overwrite another; reports each such edge at
/// the step or sink that it enters.
fn check_changelogs(checker: &Checker<'_>, job: &JobSpec, graph: Graph) -> Option<Graph> {
    let mistakes = graph.changelog_mistakes(job.settings.parallelism);
    for mistake in &mistakes {
        let uid = graph.nodes[mistake.node.0].uid.to_string();
        let steps = job.steps.iter().map(|step| (&step.name, &step.place));
        let sinks = job.sinks.iter().map(|sink| (&sink.name, &sink.place));
        // What a step is made of is named after it: `step.key`.
        let is_of =
            |name: &str| uid.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let place = steps.chain(sinks).find(|(name, _)| is_of(name)).map(|(_, place)| place.clone());
        checker.mistake(&place.unwrap_or_default(), mistake.message.clone());
    }
    mistakes.is_empty().then_some(graph)
}

struct Builder {
    environment: Environment,
    streams: BTreeMap<String, Stream>,
}

impl Builder {
    /// The streams of these inputs; `None` when one of them was a mistake, which is reported.
    fn inputs(&self, inputs: &[InputSpec]) -> Option<Vec<Stream>> {
        inputs
            .iter()
            .map(|input| {
                let stream = self.streams.get(input.from.as_str())?;
                match input.output.as_ref().map(|output| output.as_str()) {
                    None => Some(stream.clone()),
                    Some("ahead") => Some(stream.ahead()).filter(|side| side.edge_schema().is_some()),
                    // Beside that each has one side output; another name was reported.
                    Some(_) => Some(stream.side_output(1)).filter(|side| side.edge_schema().is_some()),
                }
            })
            .collect()
    }

    fn finish<T>(&mut self, named: &Named<T>, stream: Stream) {
        let stream = stream.uid(&named.name);
        let stream =
            named.uid_was.iter().fold(stream, |stream, earlier| stream.uid_was(earlier.value.as_str()));
        let stream = match named.parallelism {
            Some(parallelism) => stream.parallelism(parallelism),
            None => stream,
        };
        self.streams.insert(named.name.clone(), stream);
    }
}

/// The schema of a stream that was built without mistakes.
pub(super) fn edge_of(stream: &Stream) -> Option<EdgeSchema> {
    stream.edge_schema().cloned()
}
