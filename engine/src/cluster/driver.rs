//! Carries out what a job's coordinator decides: deploys tasks, reads and writes the store in the
//! background, commits, runs discoveries. A state machine itself, polled by a thread or by the
//! simulator; it never blocks.

mod store_work;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::claim::Claim;
use super::coordinator::Coordinator;
use super::decision::{Action, Event, Outcome};
use super::deployment::{Deployment, TaskHandle, roles};
use super::driver_metrics::DriverMetrics;
use super::end_report::{EndReport, in_words};
use super::job_store::{JobStore, RestoredCheckpoint};
use super::{Cause, FromTask, JobConfig, SourceRole, StartedFrom, TaskBlame, TaskId};
use crate::checkpoint::log::Writer;
use crate::checkpoint::{CheckpointId, CheckpointStorage, Manifest};
use crate::graph::{Graph, NodeKind, Plan, Uid};
use crate::metrics::{MetricScope, Registry};
use crate::operator::Waker;
use crate::runtime::{Background, ChannelBounds, Clock, Pool, TaskEnvironment, TaskRunner};
use crate::sink::Committer;
use crate::source::Discovery;
use crate::state::StateBackend;
use crate::time::Micros;
use crate::{Blame, Error, Result};

/// What the driver's inbox takes.
enum DriverEvent {
    /// The generation is ours.
    Claimed(Result<Writer>),
    /// The newest checkpoint was read.
    Read(Result<RestoredCheckpoint>),
    /// A discovery looked. It goes on through restarts: what it knows belongs to no attempt.
    Looked(Uid, Result<Option<Vec<u8>>>),
    /// For the coordinator.
    Coordinator(Event),
}

/// Where events for the driver wait.
#[derive(Clone)]
pub struct Inbox {
    events: Arc<Mutex<VecDeque<DriverEvent>>>,
    waker: Waker,
}

impl Inbox {
    /// An empty inbox of the driver that `waker` wakes.
    pub fn new(waker: Waker) -> Inbox {
        Inbox { events: Arc::default(), waker }
    }

    fn send(&self, event: DriverEvent) {
        self.events.lock().push_back(event);
        self.waker.wake();
    }

    /// Asks for a last checkpoint, then the end.
    pub fn stop(&self) {
        self.send(DriverEvent::Coordinator(Event::Stop));
    }

    /// Asks for the end at once.
    pub fn abandon(&self) {
        self.send(DriverEvent::Coordinator(Event::Abandon));
    }
}

/// What a job runs on.
#[derive(Clone)]
pub struct JobEnvironment {
    /// Processing time.
    pub clock: Arc<dyn Clock>,
    /// Where blocking work runs.
    pub background: Arc<dyn Background>,
    /// Where checkpoints are.
    pub storage: Arc<dyn CheckpointStorage>,
    /// Where state lives.
    pub backend: Arc<dyn StateBackend>,
    /// Where metrics go.
    pub registry: Registry,
    /// Bounds of each channel.
    pub bounds: ChannelBounds,
    /// Makes the nonce of a claim: never the same one twice, anywhere.
    pub nonce: Arc<dyn Fn() -> String + Send + Sync>,
}

/// What a poll answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverPoll {
    /// There is more to do.
    Ready,
    /// Poll again when woken, or at this monotonic time.
    Waiting(Option<Micros>),
    /// The job is over.
    Finished(Outcome),
}

struct Look {
    discovery: Arc<Mutex<Box<dyn Discovery>>>,
    interval: Micros,
    /// `None` before the job is claimed, and while one is under way.
    next_at: Option<Micros>,
}

/// Drives one job in one process.
pub struct JobDriver {
    environment: JobEnvironment,
    config: JobConfig,
    graph: Arc<Graph>,
    plan: Arc<Plan>,
    runner: Box<dyn TaskRunner>,
    inbox: Inbox,
    store: Arc<JobStore>,
    coordinator: Option<Coordinator>,
    claimed: Option<Writer>,
    manifest: Option<Arc<Manifest>>,
    /// What the first restore found; `None` before it.
    started_from: Option<Option<StartedFrom>>,
    tasks: BTreeMap<TaskId, TaskHandle>,
    attempt_metrics: MetricScope,
    looks: BTreeMap<Uid, Look>,
    committers: BTreeMap<Uid, Arc<dyn Committer>>,
    over: Arc<AtomicBool>,
    metrics: DriverMetrics,
    publishing_since: Micros,
    claim: Claim,
    end_report: EndReport,
    outcome: Option<Outcome>,
}

impl JobDriver {
    /// A driver for `graph`; the first poll claims the job's next generation.
    ///
    /// # Errors
    /// A user error when the graph cannot be planned, or a discovery cannot be made.
    pub fn new(
        graph: Graph,
        config: JobConfig,
        environment: JobEnvironment,
        runner: Box<dyn TaskRunner>,
        inbox: Inbox,
    ) -> Result<JobDriver> {
        let plan = Plan::new(&graph, config.parallelism, config.max_parallelism)?;
        let mut looks = BTreeMap::new();
        let mut committers = BTreeMap::new();
        for node in &graph.nodes {
            match &node.kind {
                NodeKind::Source { source, .. } => {
                    if let Some(discovery) = source.discovery()? {
                        let interval = discovery.interval();
                        let discovery = Arc::new(Mutex::new(discovery));
                        looks.insert(node.uid.clone(), Look { discovery, interval, next_at: None });
                    }
                }
                NodeKind::Operator { committer, .. } => {
                    committers
                        .extend(committer.iter().map(|committer| (node.uid.clone(), committer.clone())));
                }
            }
        }
        let graph = Arc::new(graph);
        let store = Arc::new(JobStore::new(environment.storage.clone(), &config, graph.clone())?);
        let metrics = DriverMetrics::new(&environment.registry, &config.name, environment.clock.clone());
        let (now, store_wait) = (environment.clock.monotonic(), config.coordinator.store_wait_at_start);
        let attempt_metrics = environment.registry.scope();
        Ok(JobDriver {
            environment,
            config,
            graph,
            plan: Arc::new(plan),
            runner,
            inbox,
            store,
            coordinator: None,
            claimed: None,
            manifest: None,
            started_from: None,
            tasks: BTreeMap::new(),
            attempt_metrics,
            looks,
            committers,
            over: Arc::default(),
            metrics,
            publishing_since: 0,
            claim: Claim::new(now, now + store_wait),
            end_report: EndReport::default(),
            outcome: None,
        })
    }

    /// Does a bounded amount of work.
    pub fn poll(&mut self) -> DriverPoll {
        if let Some(outcome) = &self.outcome {
            return DriverPoll::Finished(outcome.clone());
        }
        let now = self.environment.clock.monotonic();
        if self.claim.is_due(now) {
            let store = self.store.clone();
            let nonce = (self.environment.nonce)();
            let claim = move || DriverEvent::Claimed(store.claim(now, nonce));
            self.background("claim", claim, |error| DriverEvent::Claimed(Err(error)));
            return DriverPoll::Ready;
        }
        let event = self.inbox.events.lock().pop_front();
        if let Some(event) = event {
            self.event(now, event);
            return DriverPoll::Ready;
        }
        if self.look(now) {
            return DriverPoll::Ready;
        }
        let tick_at = self.coordinator.as_ref().and_then(Coordinator::tick_at);
        if tick_at.is_some_and(|at| at <= now) {
            self.coordinate(now, Event::Tick);
            return DriverPoll::Ready;
        }
        self.report_end(now);
        let look_at = self.looks.values().filter_map(|look| look.next_at).min();
        let times = [tick_at, look_at, self.claim.ask_at(), self.end_report.next_at()];
        DriverPoll::Waiting(times.into_iter().flatten().min())
    }

    /// Says what the job waits for before it is over, when it is time to.
    fn report_end(&mut self, now: Micros) {
        let awaited = self.coordinator.as_ref().and_then(Coordinator::awaited_end);
        if self.end_report.is_due(now, awaited.as_ref())
            && let Some(awaited) = awaited
        {
            let waiting = in_words(&awaited, now, |id| self.doing(now, id));
            tracing::info!(job = self.config.name, "{waiting}");
        }
    }

    fn doing(&self, now: Micros, id: &TaskId) -> String {
        self.tasks.get(id).map_or_else(|| "gone".to_string(), |task| task.probe.describe(now))
    }

    /// How often tasks were restarted.
    pub fn restarts(&self) -> u32 {
        self.coordinator.as_ref().map_or(0, Coordinator::restarts)
    }

    /// The newest checkpoint that is published.
    pub fn last_published(&self) -> Option<CheckpointId> {
        self.coordinator.as_ref().and_then(Coordinator::last_published)
    }

    /// The checkpoint that the job was started from.
    pub fn started_from(&self) -> Option<StartedFrom> {
        self.started_from.flatten()
    }

    fn event(&mut self, now: Micros, event: DriverEvent) {
        match event {
            DriverEvent::Claimed(Ok(claim)) => {
                let generation = claim.generation;
                self.claimed = Some(claim);
                let sources = self.source_roles();
                let roles = roles(&self.graph, &self.plan);
                let config = self.config.coordinator.clone();
                self.coordinator = Some(Coordinator::new(now, config, generation, roles, sources));
                self.looks.values_mut().for_each(|look| look.next_at = Some(now));
                self.act(Action::Restore);
            }
            DriverEvent::Claimed(Err(error)) if error.blame() == Blame::User => {
                self.outcome = Some(Outcome::Refused { error: error.to_string() });
            }
            DriverEvent::Claimed(Err(error)) => {
                if !self.claim.failed(now, &error) {
                    let error = format!("cannot claim the job: {error}");
                    self.outcome = Some(Outcome::Failed { error, blame: TaskBlame::External });
                }
            }
            DriverEvent::Read(Ok(RestoredCheckpoint { job, manifest, started_from })) => {
                self.manifest = manifest;
                self.started_from.get_or_insert(started_from);
                self.coordinate(now, Event::Restored(job));
            }
            DriverEvent::Read(Err(error)) => {
                let (cause, fenced) = (Cause::from(&error), self.store.is_fenced());
                let refused = error.blame() == Blame::User;
                self.coordinate(now, Event::RestoreFailed { cause, fenced, refused });
            }
            DriverEvent::Looked(uid, found) => {
                if let Some(look) = self.looks.get_mut(&uid) {
                    look.next_at = Some(now + look.interval);
                }
                match found {
                    Ok(Some(facts)) => self.coordinate(now, Event::Discovered(uid, facts)),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%uid, %error, "discovery failed; it looks again"),
                }
            }
            DriverEvent::Coordinator(event) => self.coordinate(now, event),
        }
    }

    fn source_roles(&self) -> BTreeMap<Uid, SourceRole> {
        let mut sources = BTreeMap::new();
        for chain in &self.plan.chains {
            let node = &self.graph.nodes[chain.nodes[0].0];
            if let NodeKind::Source { source, .. } = &node.kind {
                let discovers = self.looks.contains_key(&node.uid);
                let role = SourceRole { source: source.clone(), parallelism: chain.parallelism, discovers };
                sources.insert(node.uid.clone(), role);
            }
        }
        sources
    }

    /// Has the discoveries that are not looking look at once.
    pub fn look_again(&mut self, now: Micros) {
        let waiting = self.looks.values_mut().filter_map(|look| look.next_at.as_mut());
        waiting.for_each(|at| *at = now);
    }

    /// Starts the discoveries that are due.
    fn look(&mut self, now: Micros) -> bool {
        let mut due = Vec::new();
        for (uid, look) in &mut self.looks {
            if look.next_at.is_some_and(|at| at <= now) {
                look.next_at = None;
                due.push((uid.clone(), look.discovery.clone()));
            }
        }
        let any = !due.is_empty();
        for (uid, discovery) in due {
            let name = format!("discovery {uid}");
            let looked = uid.clone();
            let look = move || {
                let found = discovery.lock().look();
                DriverEvent::Looked(uid, found)
            };
            self.background(&name, look, |error| DriverEvent::Looked(looked, Err(error)));
        }
        any
    }

    fn coordinate(&mut self, now: Micros, event: Event) {
        if let Event::Published { checkpoint, .. } = &event {
            self.metrics.published(*checkpoint, now, self.publishing_since);
        }
        // Whoever wrote it and however late: a task of an attempt that is gone too.
        if let Event::Task(
            _,
            FromTask::Acknowledged { checkpoint, written, .. }
            | FromTask::Declined { checkpoint, written, .. },
        ) = &event
        {
            self.store.wrote(*checkpoint, written.clone());
        }
        let Some(coordinator) = &mut self.coordinator else {
            // Stop or abandon before the job was claimed.
            if matches!(event, Event::Stop | Event::Abandon) {
                self.outcome = Some(Outcome::Abandoned);
            }
            return;
        };
        let actions = coordinator.handle(now, event);
        self.metrics.follow(coordinator);
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Restore => {
                let store = self.store.clone();
                let read = move || DriverEvent::Read(store.read_newest());
                self.background("restore", read, |error| DriverEvent::Read(Err(error)));
            }
            Action::PassOver(checkpoint, why) => self.store.mark_damaged(checkpoint, why),
            Action::Deploy { attempt } => self.deploy(attempt),
            Action::Retire { .. } => {
                self.tasks.clear();
                self.attempt_metrics.end();
            }
            Action::ToTask(id, command) => {
                if let Some(task) = self.tasks.get(&id) {
                    task.mailbox.send(command);
                }
            }
            Action::Publish(content) => self.publish(*content),
            Action::Settle(checkpoint) => self.settle(checkpoint),
            Action::Tidy => self.tidy(),
            Action::Commit(checkpoint, committables) => self.commit(checkpoint, committables),
            Action::Finish(outcome) => {
                self.over.store(true, Ordering::Release);
                self.outcome = Some(self.with_doing(outcome));
                self.tasks.clear();
            }
        }
    }

    /// Of tasks that are stuck it is said what they are doing.
    fn with_doing(&self, outcome: Outcome) -> Outcome {
        let Outcome::Stuck { error, tasks } = outcome else { return outcome };
        let now = self.environment.clock.monotonic();
        let doing: Vec<_> = tasks.iter().map(|id| format!("{id} is {}", self.doing(now, id))).collect();
        Outcome::Stuck { error: format!("{error}; {}", doing.join(", ")), tasks }
    }

    fn deploy(&mut self, attempt: u64) {
        // Nothing is deployed before the claim.
        let Some(claim) = self.claimed.clone() else { return };
        self.attempt_metrics = self.environment.registry.scope();
        let inbox = self.inbox.clone();
        let reports =
            Arc::new(move |id, message| inbox.send(DriverEvent::Coordinator(Event::Task(id, message))));
        let deployment = Deployment {
            job: self.config.name.as_str().into(),
            graph: self.graph.clone(),
            plan: self.plan.clone(),
            bounds: self.environment.bounds,
            metrics: self.attempt_metrics.clone(),
            claim,
            environment: TaskEnvironment {
                clock: self.environment.clock.clone(),
                background: self.environment.background.clone(),
                reports,
                storage: self.environment.storage.clone(),
                backend: self.environment.backend.clone(),
                job_path: self.store.job_path().into(),
            },
        };
        self.tasks = deployment.start(attempt, self.manifest.as_ref(), self.runner.as_mut());
    }

    /// Runs `job` in the background; what it answers is heard, or what `on_panic` makes of its panic.
    fn background(
        &self,
        name: &str,
        job: impl FnOnce() -> DriverEvent + Send + 'static,
        on_panic: impl FnOnce(Error) -> DriverEvent + Send + 'static,
    ) {
        let (inbox, after_panic) = (self.inbox.clone(), self.inbox.clone());
        let job = move || inbox.send(job());
        let on_panic = move |panic: String| after_panic.send(on_panic(Error::internal(panic)));
        self.environment.background.spawn(Pool::Coordinator, name, Box::new(job), Box::new(on_panic));
    }
}
