//! Turns a plan into tasks: channels, edges, openers. Called once for each attempt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{TaskId, TaskRole};
use crate::checkpoint::Manifest;
use crate::checkpoint::log::Writer;
use crate::event_time::RowTime;
use crate::graph::{ChainId, Graph, Node, NodeId, NodeKind, Partitioner, Plan, PlannedEdge};
use crate::metrics::{Counter, MetricGroup, MetricScope};
use crate::operator::{OpenContext, OutputIndex, SubtaskInfo, Waker};
#[cfg(debug_assertions)]
use crate::record::Mode;
#[cfg(debug_assertions)]
use crate::runtime::Changelog;
use crate::runtime::{
    Chain, ChainLink, Channel, ChannelBounds, EdgeWriter, Head, InputGate, Mailbox, Opener, SourceHead,
    SourceTime, Target, Task, TaskEnvironment, TaskMetrics, TaskProbe, TaskRunner,
};
use crate::source::ReaderOpenContext;
use crate::state::RestoredState;
use crate::{Context, Error, Result};

/// What all deployments of a job share.
#[derive(Clone)]
pub struct Deployment {
    /// The job's name.
    pub job: Arc<str>,
    /// The graph.
    pub graph: Arc<Graph>,
    /// How it is run.
    pub plan: Arc<Plan>,
    /// Bounds of each channel.
    pub bounds: ChannelBounds,
    /// Where the attempt's metrics go.
    pub metrics: MetricScope,
    /// What tasks need.
    pub environment: TaskEnvironment,
    /// The claim of this run of the coordinator.
    pub claim: Writer,
}

/// What the driver holds of a task.
pub struct TaskHandle {
    /// Where its commands go.
    pub mailbox: Arc<Mailbox>,
    /// What it is doing.
    pub probe: Arc<TaskProbe>,
}

type Channels = BTreeMap<(usize, u32, u32), Arc<Channel>>;

/// The roles of a plan's tasks, in the order of chains and subtasks.
pub fn roles(graph: &Graph, plan: &Plan) -> Vec<TaskRole> {
    let mut roles = Vec::new();
    for (index, chain) in plan.chains.iter().enumerate() {
        let head = &graph.nodes[chain.nodes[0].0];
        let source = matches!(head.kind, NodeKind::Source { .. }).then(|| head.uid.clone());
        let uids: Vec<_> = chain.nodes.iter().map(|node| graph.nodes[node.0].uid.clone()).collect();
        for subtask in 0..chain.parallelism {
            let id = TaskId { attempt: 0, chain: ChainId(index), subtask, head: head.uid.clone() };
            roles.push(TaskRole { id, source: source.clone(), uids: uids.clone() });
        }
    }
    roles
}

impl Deployment {
    /// Starts the tasks of an attempt, restored from `manifest`, and returns what holds on to them.
    pub fn start(
        &self,
        attempt: u64,
        manifest: Option<&Arc<Manifest>>,
        runner: &mut dyn TaskRunner,
    ) -> BTreeMap<TaskId, TaskHandle> {
        let channels = self.channels();
        let mut handles = BTreeMap::new();
        for role in roles(&self.graph, &self.plan) {
            let id = TaskId { attempt, ..role.id };
            let (waker, slot) = runner.waker();
            let mailbox = runner.mailbox(&waker);
            let operators_woken = Arc::new(AtomicBool::new(false));
            let group = self.metrics.group(vec![
                ("job", self.job.to_string()),
                ("uid", id.head.to_string()),
                ("subtask", id.subtask.to_string()),
                ("attempt", attempt.to_string()),
            ]);
            let opener = self.opener(&id, manifest.cloned(), &channels, waker, operators_woken.clone());
            let environment = self.environment.clone();
            let reports = environment.reports.clone();
            let metrics = TaskMetrics::new(&group);
            let handle = TaskHandle { mailbox: mailbox.clone(), probe: metrics.probe.clone() };
            let task = Task::new(id.clone(), environment, mailbox, opener, operators_woken, metrics);
            handles.insert(id, handle);
            runner.run(slot, task, reports);
        }
        handles
    }

    fn channels(&self) -> Channels {
        let mut channels = BTreeMap::new();
        for (index, PlannedEdge { edge, from, to }) in self.plan.edges.iter().enumerate() {
            let (senders, receivers) =
                (self.plan.chains[from.0].parallelism, self.plan.chains[to.0].parallelism);
            for sender in 0..senders {
                for receiver in 0..receivers {
                    if edge.partitioner != Partitioner::Forward || sender == receiver {
                        channels.insert((index, sender, receiver), Channel::new(self.bounds));
                    }
                }
            }
        }
        #[cfg(debug_assertions)]
        self.watch_changelogs(&channels);
        channels
    }

    /// Has every changelog checked as it flows.
    #[cfg(debug_assertions)]
    fn watch_changelogs(&self, channels: &Channels) {
        let mut changelogs = BTreeMap::new();
        for (index, (&(edge, _, receiver), channel)) in channels.iter().enumerate() {
            let PlannedEdge { edge, to, .. } = &self.plan.edges[edge];
            let mode = &self.graph.nodes[edge.from.0].outputs[usize::from(edge.output.0)].mode;
            if *mode == Mode::Append {
                continue;
            }
            // What goes to all is complete at each receiver.
            let receiver = (edge.partitioner == Partitioner::Broadcast).then_some(receiver);
            let changelog =
                changelogs.entry((*to, edge.input, receiver)).or_insert_with(|| Changelog::new(mode.clone()));
            channel.set_changelog(changelog.clone(), index);
        }
    }

    /// The ends of the task's channels are tied to its waker here, before any task runs.
    fn opener(
        &self,
        id: &TaskId,
        manifest: Option<Arc<Manifest>>,
        channels: &Channels,
        waker: Waker,
        operators_woken: Arc<AtomicBool>,
    ) -> Opener {
        let mut incoming = Vec::new();
        let mut timeless = Vec::new();
        let mut outgoing = Vec::new();
        for (index, planned) in self.plan.edges.iter().enumerate() {
            for (&(_, sender, receiver), channel) in channels.range((index, 0, 0)..(index + 1, 0, 0)) {
                if planned.to == id.chain && receiver == id.subtask {
                    let from = &self.graph.nodes[planned.edge.from.0];
                    if !from.outputs[usize::from(planned.edge.output.0)].watermarks {
                        timeless.push(incoming.len());
                    }
                    incoming.push((planned.edge.input, channel.clone()));
                }
                if planned.from == id.chain && sender == id.subtask {
                    outgoing.push((index, channel.clone()));
                }
            }
        }
        if timeless.len() == incoming.len() {
            timeless.clear();
        }
        let gate =
            (!incoming.is_empty()).then(|| InputGate::new(incoming, &waker).without_watermarks(&timeless));
        let edges = self.edge_writers(id, outgoing, &waker);
        let deployment = self.clone();
        let id = id.clone();
        Box::new(move || {
            let opening = Opening { deployment: &deployment, id: &id, manifest, waker, operators_woken };
            let (head, chain) = opening.open(gate)?;
            Ok((head, chain, edges.into_iter().map(|(_, writer)| writer).collect()))
        })
    }

    fn edge_writers(
        &self,
        id: &TaskId,
        outgoing: Vec<(usize, Arc<Channel>)>,
        waker: &Waker,
    ) -> Vec<(usize, EdgeWriter)> {
        let mut by_edge: BTreeMap<usize, Vec<Arc<Channel>>> = BTreeMap::new();
        for (index, channel) in outgoing {
            by_edge.entry(index).or_default().push(channel);
        }
        let writer = |(index, channels): (usize, Vec<_>)| {
            let edge = self.plan.edges[index].edge;
            let schema = self.graph.nodes[edge.from.0].outputs[usize::from(edge.output.0)].schema.clone();
            let first = id.subtask as usize;
            let max_parallelism = self.plan.max_parallelism;
            (index, EdgeWriter::new(edge.partitioner, max_parallelism, schema, channels, waker, first))
        };
        by_edge.into_iter().map(writer).collect()
    }
}

fn rows_unread(metrics: &MetricGroup) -> Counter {
    metrics.counter("rows_unread_total", "Rows emitted on side outputs that nobody reads.")
}

/// What one task's opening needs.
struct Opening<'a> {
    deployment: &'a Deployment,
    id: &'a TaskId,
    manifest: Option<Arc<Manifest>>,
    waker: Waker,
    operators_woken: Arc<AtomicBool>,
}

impl Opening<'_> {
    fn open(&self, gate: Option<InputGate>) -> Result<(Head, Chain)> {
        let Deployment { graph, plan, .. } = self.deployment;
        let nodes = &plan.chains[self.id.chain.0].nodes;
        let is_source = matches!(graph.nodes[nodes[0].0].kind, NodeKind::Source { .. });
        let mut links = Vec::new();
        for &node in nodes.iter().skip(usize::from(is_source)) {
            links.push(self.link(node, is_source)?);
        }
        if is_source {
            let head = self.source(nodes[0])?;
            let unread = rows_unread(&self.metrics(&graph.nodes[nodes[0].0]));
            let chain = Chain::new(links, self.targets(nodes[0], true), 0).counting_unread(unread);
            return Ok((Head::Source(Box::new(head)), chain));
        }
        let gate = gate.ok_or_else(|| Error::internal(format!("task {} has no input", self.id)))?;
        let inputs = graph.nodes[nodes[0].0].inputs;
        Ok((Head::Gate(gate), Chain::new(links, Vec::new(), inputs)))
    }

    fn info(&self, node: &Node) -> SubtaskInfo {
        SubtaskInfo {
            job: self.deployment.job.clone(),
            uid: node.uid.clone(),
            subtask: self.id.subtask,
            parallelism: self.deployment.plan.chains[self.id.chain.0].parallelism,
            max_parallelism: self.deployment.plan.max_parallelism,
            generation: self.deployment.claim.generation,
            attempt: self.id.attempt,
            claim: self.deployment.claim.nonce.as_str().into(),
        }
    }

    fn metrics(&self, node: &Node) -> MetricGroup {
        self.deployment.metrics.group(vec![
            ("job", self.deployment.job.to_string()),
            ("uid", node.uid.to_string()),
            ("subtask", self.id.subtask.to_string()),
            ("attempt", self.id.attempt.to_string()),
        ])
    }

    fn source(&self, id: NodeId) -> Result<SourceHead> {
        let node = &self.deployment.graph.nodes[id.0];
        let NodeKind::Source { source, event_time, watermarks } = &node.kind else {
            return Err(Error::internal(format!("{} is not a source", node.uid)));
        };
        let (info, metrics) = (self.info(node), self.metrics(node));
        let cx = ReaderOpenContext { info: &info, waker: &self.waker, metrics: &metrics };
        let reader = source.reader(&cx).context(|| format!("source {}", node.uid))?;
        let output = &node.outputs[0];
        let time = match (watermarks, output.time) {
            (Some(strategy), Some(column)) => {
                let computed = event_time.as_ref().map(|(_, expression)| expression.clone());
                let (schema, max_ahead) = (output.schema.clone(), strategy.max_ahead);
                Some(SourceTime {
                    rows: RowTime::new(schema, column, computed, max_ahead, &metrics),
                    strategy: strategy.clone(),
                    ahead: u16::try_from(node.outputs.len() - 1).unwrap_or(u16::MAX),
                })
            }
            _ => None,
        };
        let rows = metrics.counter("rows_out_total", "Rows emitted.");
        Ok(SourceHead::new(node.uid.clone(), reader, time, rows))
    }

    fn link(&self, id: NodeId, below_source: bool) -> Result<ChainLink> {
        let node = &self.deployment.graph.nodes[id.0];
        let NodeKind::Operator { factory, .. } = &node.kind else {
            return Err(Error::internal(format!("{} is not an operator", node.uid)));
        };
        let (info, metrics) = (self.info(node), self.metrics(node));
        let restored = match &self.manifest {
            Some(manifest) => {
                manifest.restored_for(&node.uid, info.subtask, info.parallelism, info.max_parallelism)?
            }
            None => RestoredState::default(),
        };
        let woken = self.operators_woken.clone();
        let task = self.waker.clone();
        let waker = Waker::new(move || {
            woken.store(true, Ordering::Release);
            task.wake();
        });
        let environment = &self.deployment.environment;
        let mut operator = factory.create().context(|| format!("operator {}", node.uid))?;
        let mut cx = OpenContext {
            info: &info,
            restored: &restored,
            backend: &environment.backend,
            storage: &environment.storage,
            metrics: &metrics,
            waker: &waker,
            now: environment.clock.now(),
            has_keyed_state: false,
        };
        operator.open(&mut cx).context(|| format!("operator {}", node.uid))?;
        Ok(ChainLink {
            uid: node.uid.clone(),
            name: node.name.clone(),
            operator,
            keeps_state: node.identity.is_some(),
            targets: self.targets(id, below_source),
            rows_in: metrics.counter("rows_in_total", "Rows taken."),
            rows_out: metrics.counter("rows_out_total", "Rows emitted."),
            rows_unread: rows_unread(&metrics),
        })
    }

    /// Where the outputs of a node go. Link indices do not count a source at the head.
    fn targets(&self, id: NodeId, below_source: bool) -> Vec<Vec<Target>> {
        let Deployment { graph, plan, .. } = self.deployment;
        let chain = &plan.chains[self.id.chain.0];
        let outputs = graph.nodes[id.0].outputs.len();
        let mut targets = vec![Vec::new(); outputs];
        let link_of = |node: NodeId| {
            chain.nodes.iter().position(|&other| other == node).map(|at| at - usize::from(below_source))
        };
        let mut add = |output: OutputIndex, target: Target| {
            if let Some(targets) = targets.get_mut(usize::from(output.0)) {
                targets.push(target);
            }
        };
        for edge in chain.inner.iter().filter(|edge| edge.from == id) {
            if let Some(link) = link_of(edge.to) {
                add(edge.output, Target::Operator(link));
            }
        }
        let outgoing = plan.edges.iter().filter(|planned| planned.from == self.id.chain);
        for (writer, planned) in outgoing.enumerate() {
            if planned.edge.from == id {
                add(planned.edge.output, Target::Edge(writer));
            }
        }
        targets
    }
}
