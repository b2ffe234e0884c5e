//! The router: takes records for logical topics, sends each to a cluster that is well, tries
//! another one when that fails, and answers when a cluster holds the record with `acks=all` (P2,
//! P3). The gateway serves it; a sink may embed it.
//!
//! The rules: a record is never dropped, it is acknowledged or failed with a reason (P6); what is
//! held is bounded in bytes; a record is with one cluster at a time. A record that failed in a
//! cluster may yet be there (its acknowledgement was lost): copies carry the same id.
//!
//! Order (P7): records of one key that come in one request, or in requests one after the other,
//! are written to one partition in that order while no cluster that holds the topic fails and the
//! topology does not change. It is not promised over a failure, a return of a cluster, or between
//! requests that overlap.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rdkafka::error::RDKafkaErrorCode;
use thalweg_engine::metrics::{Counter, Gauge, MetricGroup};
use thalweg_engine::{Error, Result};
use thalweg_proto::prism::{ErrorCode, Record, RecordResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cluster::{Cluster, Refused};
use super::config::RouterConfig;
use super::outcome::{self, Fault};
use super::request::{Delivery, Request, closing};
use super::route::{Candidate, decide};
use crate::kafka::{Topology, TopologyFile};

/// How often clusters are looked after and the topology file is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long a removed cluster may take to deliver what it was given.
const RETIRE_BOUND: Duration = Duration::from_secs(30);
/// How long the end waits for what is under way.
const CLOSE_BOUND: Duration = Duration::from_secs(10);
/// The unit of room: a semaphore counts at most 2^29 of them.
const ROOM_UNIT_BYTES: usize = 1024;

/// A router; clones share it. The last one to go ends it: what is under way gets
/// `CLOSE_BOUND` when [`Router::close`] was called, else nothing.
#[derive(Clone)]
pub struct Router(Arc<Handle>);

struct Handle(Arc<Inner>);

/// What the router's threads and requests share.
pub(super) struct Inner {
    config: RouterConfig,
    topology: TopologyFile,
    fleet: RwLock<Fleet>,
    room: Arc<Semaphore>,
    room_units: usize,
    turn: AtomicU64,
    closing: AtomicBool,
    metrics: MetricGroup,
    rerouted: Counter,
    refused: Counter,
    in_flight: Gauge,
}

#[derive(Default)]
struct Fleet {
    topology: Option<Arc<Topology>>,
    clusters: BTreeMap<String, Arc<Cluster>>,
}

/// A cluster that holds a topic, and the topic's name there.
struct Holder {
    cluster: Arc<Cluster>,
    topic: String,
    weight: u32,
}

impl Router {
    /// A router over the clusters of the topology file. Clusters that are away do not keep it
    /// from starting.
    ///
    /// # Errors
    /// A user error when there is no good topology, or a cluster's settings are refused.
    pub fn new(config: RouterConfig, metrics: &MetricGroup) -> Result<Router> {
        let topology = TopologyFile::new(&config.topology);
        topology.require()?;
        let room_units = (config.limits.in_flight_bytes / ROOM_UNIT_BYTES).clamp(1, 1 << 28);
        let inner = Arc::new(Inner {
            topology,
            fleet: RwLock::default(),
            room: Arc::new(Semaphore::new(room_units)),
            room_units,
            turn: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            metrics: metrics.clone(),
            rerouted: metrics.counter("prism_records_rerouted_total", "Records tried at another cluster."),
            refused: metrics.counter("prism_requests_refused_total", "Requests refused for want of room."),
            in_flight: metrics.gauge("prism_in_flight_bytes", "Bytes of records not yet acknowledged."),
            config,
        });
        inner.follow_topology()?;
        let watched = Arc::downgrade(&inner);
        std::thread::Builder::new()
            .name("prism-router".into())
            .spawn(move || look_after(&watched))
            .map_err(|error| Error::external("no thread for the router").caused_by(error))?;
        Ok(Router(Arc::new(Handle(inner))))
    }

    /// The router that all in this process share who ask with the same configuration; made when
    /// nobody has it.
    ///
    /// # Errors
    /// As [`Router::new`].
    pub fn shared(config: &RouterConfig, metrics: &MetricGroup) -> Result<Router> {
        static SHARED: Mutex<Vec<(RouterConfig, Weak<Handle>)>> = Mutex::new(Vec::new());
        let mut shared = SHARED.lock();
        shared.retain(|(_, router)| router.strong_count() > 0);
        let found = shared.iter().find(|(other, _)| other == config).and_then(|(_, router)| router.upgrade());
        if let Some(router) = found {
            return Ok(Router(router));
        }
        let router = Router::new(config.clone(), metrics)?;
        shared.push((config.clone(), Arc::downgrade(&router.0)));
        Ok(router)
    }

    /// What it takes and holds.
    pub fn config(&self) -> &RouterConfig {
        &self.0.0.config
    }

    /// Writes records to a logical topic. One result for each record, in their order. What was
    /// handed over goes on when the future is dropped.
    pub async fn produce(&self, topic: &str, records: Arc<[Record]>) -> Vec<RecordResult> {
        let inner = &self.0.0;
        let count = records.len();
        if count == 0 {
            return Vec::new();
        }
        let bytes: usize = records.iter().map(outcome::held_bytes).sum();
        let room = match inner.take_room(bytes).await {
            Ok(room) => room,
            Err(refused) => return vec![refused; count],
        };
        // The hand-over does not wait: requests that come one after the other stay so.
        let results = inner.submit(topic, records, room);
        results.await.unwrap_or_else(|_| vec![closing(); count])
    }

    /// Takes no more records, and waits for what is under way, at most ten seconds. Blocks.
    pub fn close(&self) {
        let inner = &self.0.0;
        inner.closing.store(true, Ordering::Release);
        let clusters: Vec<_> = inner.fleet.read().clusters.values().cloned().collect();
        let end = Instant::now() + CLOSE_BOUND;
        for cluster in clusters {
            cluster.flush(end.saturating_duration_since(Instant::now()));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
        // Requests under way hold the rest; the clusters end here.
        let fleet = std::mem::take(&mut *self.0.fleet.write());
        drop(fleet);
    }
}

impl Inner {
    async fn take_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, RecordResult> {
        let units = bytes.div_ceil(ROOM_UNIT_BYTES).max(1);
        if units > self.room_units {
            let limit = self.config.limits.in_flight_bytes;
            let message = format!("the batch takes {bytes} bytes; Prism holds at most {limit}");
            return Err(outcome::failed(ErrorCode::RecordTooLarge, false, message));
        }
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let room = tokio::time::timeout(self.config.room_wait, self.room.clone().acquire_many_owned(units));
        let taken = match room.await {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(closing()),
            Err(_) => {
                self.refused.add(1);
                let limit = self.config.limits.in_flight_bytes;
                let message = format!("{limit} bytes of records wait for their clusters; slow down");
                Err(outcome::failed(ErrorCode::QueueFull, true, message))
            }
        };
        self.show_room();
        taken
    }

    fn show_room(&self) {
        let taken = self.room_units.saturating_sub(self.room.available_permits());
        self.in_flight.set(i64::try_from(taken * ROOM_UNIT_BYTES).unwrap_or(i64::MAX));
    }

    fn submit(
        self: &Arc<Self>,
        topic: &str,
        records: Arc<[Record]>,
        room: OwnedSemaphorePermit,
    ) -> tokio::sync::oneshot::Receiver<Vec<RecordResult>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = records.len();
        let (request, results) =
            Request::new(Arc::downgrade(self), topic.to_owned(), records, turn, Some(room));
        let holders = self.holders(topic);
        let record_max = self.config.limits.record_bytes;
        for index in 0..count {
            let delivery = Delivery::new(request.clone(), index);
            let bytes = outcome::record_bytes(&request.records[index]);
            if bytes > record_max {
                let message = format!("the record has {bytes} bytes; Prism takes at most {record_max}");
                delivery.done(outcome::failed(ErrorCode::RecordTooLarge, false, message));
            } else {
                self.send_to_one(delivery, holders.as_deref(), None);
            }
        }
        results
    }

    /// Sends a record that failed in one cluster to another one.
    pub(super) fn send_on(self: &Arc<Self>, delivery: Box<Delivery>, failure: Option<RDKafkaErrorCode>) {
        self.rerouted.add(1);
        let holders = self.holders(&delivery.request.topic);
        self.send_to_one(delivery, holders.as_deref(), failure);
    }

    fn send_to_one(
        &self,
        mut delivery: Box<Delivery>,
        holders: Option<&[Holder]>,
        mut failure: Option<RDKafkaErrorCode>,
    ) {
        if self.closing.load(Ordering::Acquire) {
            return delivery.done(closing());
        }
        let Some(holders) = holders.filter(|holders| !holders.is_empty()) else {
            let message = format!("the topology does not know the topic {:?}", delivery.request.topic);
            return delivery.done(outcome::failed(ErrorCode::UnknownTopic, false, message));
        };
        loop {
            let candidates: Vec<_> = holders
                .iter()
                .map(|holder| Candidate {
                    name: &holder.cluster.name,
                    weight: holder.weight,
                    health: holder.cluster.health(),
                    tried: delivery.tried.contains(&holder.cluster.name),
                })
                .collect();
            let Some(chosen) = decide(&candidates, delivery.spread()) else {
                let result = nowhere(&delivery, holders, failure);
                return delivery.done(result);
            };
            let holder = &holders[chosen];
            match holder.cluster.send(&holder.topic, delivery) {
                Ok(()) => return,
                Err(Refused::Full(back)) => {
                    let message = format!("the queue of cluster {} is full; slow down", holder.cluster.name);
                    return back.done(outcome::failed(ErrorCode::QueueFull, true, message));
                }
                Err(Refused::Client(back, error)) => {
                    let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                    if outcome::fault(code) == Fault::Record {
                        return back.failed_at(&holder.cluster.name, code);
                    }
                    delivery = back;
                    delivery.tried.push(holder.cluster.name.clone());
                    failure = Some(code);
                }
            }
        }
    }

    /// The clusters that hold a topic; `None` when the topology does not know it.
    fn holders(&self, topic: &str) -> Option<Vec<Holder>> {
        let fleet = self.fleet.read();
        let topic = fleet.topology.as_ref()?.topics.get(topic)?;
        let holder = |(name, physical): (&String, &String)| {
            let cluster = fleet.clusters.get(name)?.clone();
            let weight = self.config.weights.get(name).copied().unwrap_or(1);
            Some(Holder { cluster, topic: physical.clone(), weight })
        };
        Some(topic.clusters.iter().filter_map(holder).collect())
    }

    /// Takes a new topology over. Clusters that are reached as before are left alone.
    fn follow_topology(&self) -> Result<()> {
        let Some(topology) = self.topology.current(TICK) else { return Ok(()) };
        if self.fleet.read().topology.as_ref().is_some_and(|current| Arc::ptr_eq(current, &topology)) {
            return Ok(());
        }
        let known = self.fleet.read().clusters.clone();
        let mut clusters = BTreeMap::new();
        for (name, address) in &topology.clusters {
            let same = known.get(name).filter(|cluster| &cluster.address == address);
            let cluster = match same {
                Some(cluster) => cluster.clone(),
                None => Cluster::new(name, address.clone(), &self.config, &self.metrics)?,
            };
            clusters.insert(name.clone(), cluster);
        }
        let retired: Vec<_> =
            known.into_values().filter(|old| !clusters.values().any(|new| Arc::ptr_eq(new, old))).collect();
        *self.fleet.write() = Fleet { topology: Some(topology), clusters };
        for cluster in retired {
            retire(cluster);
        }
        Ok(())
    }
}

/// Why a record goes nowhere.
fn nowhere(delivery: &Delivery, holders: &[Holder], failure: Option<RDKafkaErrorCode>) -> RecordResult {
    let untried = holders.iter().any(|holder| !delivery.tried.contains(&holder.cluster.name));
    let names: Vec<_> = holders.iter().map(|holder| &*holder.cluster.name).collect();
    let names = names.join(", ");
    let topic = &delivery.request.topic;
    match failure {
        Some(code) if outcome::fault(code) == Fault::Topic => {
            let message = format!("topic {topic:?} is refused by its clusters ({names}): {code}");
            outcome::failed(ErrorCode::TopicRefused, untried, message)
        }
        Some(code) => {
            let message = format!("every cluster of topic {topic:?} failed or is ill ({names}): {code}");
            outcome::failed(ErrorCode::NoCluster, true, message)
        }
        None => {
            let message = format!("no cluster of topic {topic:?} is well ({names})");
            outcome::failed(ErrorCode::NoCluster, true, message)
        }
    }
}

/// Lets a cluster that is no longer used deliver what it was given, then lets it go.
fn retire(cluster: Arc<Cluster>) {
    let name = cluster.name.clone();
    let spawned = std::thread::Builder::new().name(format!("prism-retire-{name}")).spawn(move || {
        cluster.flush(RETIRE_BOUND);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, %name, "no thread to retire a cluster on");
    }
}

fn look_after(watched: &Weak<Inner>) {
    let mut trouble = None;
    while let Some(inner) = watched.upgrade() {
        if inner.closing.load(Ordering::Acquire) {
            return;
        }
        match inner.follow_topology() {
            Ok(()) => trouble = None,
            Err(error) => {
                let text = error.to_string();
                if trouble.as_ref() != Some(&text) {
                    tracing::warn!(%error, "the new topology cannot be used; the last good one stays");
                }
                trouble = Some(text);
            }
        }
        let clusters: Vec<_> = inner.fleet.read().clusters.values().cloned().collect();
        clusters.iter().for_each(Cluster::look_after);
        inner.show_room();
        drop((clusters, inner));
        std::thread::sleep(TICK);
    }
}
