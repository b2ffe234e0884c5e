//! `explain`: how a job will be run, as text. Deterministic, and without secrets.

use std::fmt::Write;

use thalweg_engine::cluster::RestartStrategy;
use thalweg_engine::graph::{Graph, Node, NodeKind, Partitioner, Plan, PlannedChain, PlannedEdge};
use thalweg_engine::operator::OutputIndex;
use thalweg_engine::record::{EdgeSchema, Mode};
use thalweg_engine::state::type_word;

use crate::config::show_duration;

use super::spec::{OnDamaged, SettingsSpec};
use super::{LoadedJob, describe};

/// The settings, the chains with their operators, the edges between them, and the memory plan.
pub fn explain(job: &LoadedJob) -> String {
    let mut text = String::new();
    settings(&mut text, &job.spec.settings);
    let SettingsSpec { parallelism, max_parallelism, .. } = job.spec.settings;
    match Plan::new(&job.graph, parallelism, max_parallelism) {
        Ok(plan) => {
            for (index, planned) in plan.chains.iter().enumerate() {
                chain(&mut text, job, &plan, index, planned);
            }
        }
        Err(error) => line(&mut text, &format!("cannot be planned: {error}")),
    }
    text.push('\n');
    text.push_str(&job.memory.to_string());
    job.masks.apply(&text).into_owned()
}

fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn settings(text: &mut String, spec: &SettingsSpec) {
    line(text, &format!("job {}", spec.name));
    line(text, &format!("  parallelism    {} (at most {})", spec.parallelism, spec.max_parallelism));
    let checkpoint = &spec.checkpoint;
    let damaged = match checkpoint.on_damaged {
        OnDamaged::Fail => "a damaged one fails the job",
        OnDamaged::Older => "a damaged one is skipped for an older one",
    };
    line(
        text,
        &format!(
            "  checkpoints    every {} to {}, {} retained, {damaged}",
            show_duration(checkpoint.interval),
            checkpoint.store.value,
            checkpoint.retain
        ),
    );
    line(text, &format!("  restarts       {}", restarts(&spec.restart)));
}

fn restarts(strategy: &RestartStrategy) -> String {
    match *strategy {
        RestartStrategy::None => "none".to_string(),
        RestartStrategy::FixedDelay { attempts, delay } => {
            format!("at most {attempts} times, {} apart", show_duration(delay))
        }
        RestartStrategy::ExponentialDelay { initial, max, reset_after, attempts } => {
            let often =
                attempts.map_or_else(|| "any number".to_string(), |most| format!("at most {most} in a row"));
            let [initial, max, reset_after] = [initial, max, reset_after].map(show_duration);
            format!(
                "{often}, {initial} to {max} apart, from {initial} again after {reset_after} without a failure"
            )
        }
        RestartStrategy::FailureRate { failures, within, delay } => {
            format!("at most {failures} within {}, {} apart", show_duration(within), show_duration(delay))
        }
    }
}

fn chain(text: &mut String, job: &LoadedJob, plan: &Plan, index: usize, planned: &PlannedChain) {
    let graph = &job.graph;
    let tasks = if planned.parallelism == 1 { "task" } else { "tasks" };
    let _ = writeln!(text, "\nchain {index}: {} {tasks}", planned.parallelism);
    for id in &planned.nodes {
        let Some(node) = graph.nodes.get(id.0) else { continue };
        // A node that passes its input's columns on need not repeat them.
        let input = planned
            .inner
            .iter()
            .find(|edge| edge.to == *id)
            .and_then(|edge| graph.nodes.get(edge.from.0)?.outputs.get(usize::from(edge.output.0)));
        operator(text, job, node, input);
    }
    for edge in plan.edges.iter().filter(|edge| edge.from.0 == index) {
        line(text, &format!("  -> {}", describe_edge(graph, edge)));
    }
}

fn operator(text: &mut String, job: &LoadedJob, node: &Node, input: Option<&EdgeSchema>) {
    line(text, &format!("  {}: {}", node.uid, describe(job, node)));
    if let Some(identity) = &node.identity {
        line(text, &format!("      state       {identity}"));
    }
    if let NodeKind::Source { event_time, watermarks, .. } = &node.kind {
        if let Some((column, expression)) = event_time {
            line(text, &format!("      event time  {column} = {}", expression.describe()));
        }
        if let Some(strategy) = watermarks {
            let idle = strategy
                .idle_after
                .map_or_else(|| "never".to_string(), |after| format!("after {}", show_duration(after)));
            let made = match strategy.out_of_order() {
                Some(bound) => format!("{} out of order", show_duration(bound)),
                None => strategy.to_string(),
            };
            line(text, &format!("      watermarks  {made}, idle {idle}"));
        }
    }
    if let NodeKind::Operator { factory, .. } = &node.kind {
        match factory.details() {
            Ok(details) => {
                details.iter().for_each(|(name, value)| line(text, &format!("      {name:<11} {value}")));
            }
            Err(error) => line(text, &format!("      cannot be said: {error}")),
        }
    }
    for (index, output) in node.outputs.iter().enumerate() {
        let name = if index == 0 { "columns".to_string() } else { format!("side output {index}") };
        if !output.schema.fields().is_empty() && input != Some(output) {
            line(text, &format!("      {name:<11} {}", columns(output)));
        }
    }
}

fn describe(job: &LoadedJob, node: &Node) -> String {
    let named = describe::describe(&job.spec, node.uid.as_str());
    match &node.kind {
        NodeKind::Source { source, .. } => named.unwrap_or_else(|| source.describe()),
        NodeKind::Operator { factory, committer } => {
            let committed = if committer.is_some() { " (commits with checkpoints)" } else { "" };
            format!("{}{committed}", named.unwrap_or_else(|| factory.describe()))
        }
    }
}

fn describe_edge(graph: &Graph, planned: &PlannedEdge) -> String {
    let edge = &planned.edge;
    let uid = |index: usize| graph.nodes.get(index).map_or("?", |node| node.uid.as_str());
    let side = if edge.output == OutputIndex::MAIN {
        String::new()
    } else {
        format!(" side output {}", edge.output.0)
    };
    let partitioner = match edge.partitioner {
        Partitioner::Forward => "forward",
        Partitioner::Hash => "hash",
        Partitioner::Rebalance => "rebalance",
        Partitioner::Broadcast => "broadcast",
    };
    format!("chain {}, {partitioner}: {}{side} to {}", planned.to.0, uid(edge.from.0), uid(edge.to.0))
}

fn columns(edge: &EdgeSchema) -> String {
    let columns = edge.schema.fields().iter().enumerate().map(|(index, field)| {
        let time = if edge.time == Some(index) { " (event time)" } else { "" };
        let null = if field.is_nullable() { "" } else { " not null" };
        format!("{} {}{null}{time}", field.name(), type_word(field.data_type()))
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    match &edge.mode {
        Mode::Append => columns,
        mode => format!("{columns}; {mode}"),
    }
}
