//! One cluster as the router sees it: a producer (idempotent, `acks=all`), a breaker, counters.
//!
//! The rules: a record given to a cluster comes back exactly once, acknowledged or failed, on the
//! client's own thread; a producer is never dropped on that thread, which would wait for itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use thalweg_engine::metrics::{Counter, Gauge, MetricGroup};
use thalweg_engine::{Context, Result};
use thalweg_proto::prism::Record;

use super::breaker::{Breaker, Health};
use super::config::RouterConfig;
use super::outcome::{self, Fault};
use super::request::Delivery;
use crate::kafka::topology::Cluster as Address;
use crate::kafka::{ClientSettings, RedactedLog, producer_config};
use crate::record_id::{RECORD_ID_HEADER, RecordId};

/// How long a probe may take.
const PROBE_BOUND: Duration = Duration::from_secs(2);
/// Messages that the client may hold; the bound that counts is the router's, in bytes.
const CLIENT_MESSAGES_MAX: &str = "10000000";

type Client = ThreadedProducer<DeliveryContext>;

/// A cluster.
pub(super) struct Cluster {
    pub(super) name: Arc<str>,
    pub(super) address: Address,
    settings: ClientSettings,
    client: RwLock<Option<Arc<Client>>>,
    vitals: Arc<Vitals>,
}

/// What the client's thread and the router both look at.
pub(super) struct Vitals {
    name: Arc<str>,
    breaker: Mutex<Breaker>,
    started: Instant,
    probing: AtomicBool,
    acknowledged: Counter,
    failures: Counter,
    open: Gauge,
    in_flight: Gauge,
}

/// Why a record was not taken; it is given back.
pub(super) enum Refused {
    /// The client has no room.
    Full(Box<Delivery>),
    /// The client cannot be used, or refuses the record.
    Client(Box<Delivery>, KafkaError),
}

impl Cluster {
    /// A cluster; connects in the background.
    pub(super) fn new(
        name: &str,
        address: Address,
        router: &RouterConfig,
        metrics: &MetricGroup,
    ) -> Result<Arc<Cluster>> {
        let settings = client_settings(&address, router).context(|| format!("cluster {name}"))?;
        let metrics = metrics.with("cluster", name);
        let vitals = Arc::new(Vitals {
            name: name.into(),
            breaker: Mutex::new(Breaker::new(router.breaker)),
            started: Instant::now(),
            probing: AtomicBool::new(false),
            acknowledged: metrics
                .counter("prism_records_acknowledged_total", "Records that a cluster holds."),
            failures: metrics.counter("prism_deliveries_failed_total", "Deliveries that failed."),
            open: metrics.gauge("prism_breaker_open", "1 while nothing is sent to the cluster."),
            in_flight: metrics.gauge("prism_records_in_flight", "Records not yet acknowledged."),
        });
        let cluster = Cluster { name: name.into(), address, settings, client: RwLock::new(None), vitals };
        cluster.connect()?;
        Ok(Arc::new(cluster))
    }

    fn connect(&self) -> Result<()> {
        let log = RedactedLog { redaction: self.settings.redaction() };
        let context = DeliveryContext { log, vitals: self.vitals.clone() };
        let client = self.settings.create(context).context(|| format!("cluster {}", self.name))?;
        let before = self.client.write().replace(Arc::new(client));
        drop_elsewhere(before);
        Ok(())
    }

    /// What may be sent now.
    pub(super) fn health(&self) -> Health {
        self.vitals.breaker.lock().health()
    }

    /// Hands a record to the client. A half open cluster takes one.
    pub(super) fn send(&self, topic: &str, delivery: Box<Delivery>) -> Result<(), Refused> {
        // Not a clone: the last one must not be dropped here, on another client's thread.
        let client = self.client.read();
        let Some(client) = client.as_ref() else {
            return Err(Refused::Client(delivery, unusable()));
        };
        let trial = match self.health() {
            Health::Closed => false,
            _ if self.vitals.breaker.lock().take_trial() => true,
            _ => return Err(Refused::Client(delivery, unusable())),
        };
        let request = delivery.request.clone();
        let record = base_record(topic, &request.records[delivery.index], delivery);
        self.vitals.in_flight.add(1);
        let Err((error, record)) = client.send(record) else { return Ok(()) };
        self.vitals.in_flight.add(-1);
        if trial {
            self.vitals.breaker.lock().return_trial();
        }
        let delivery = record.delivery_opaque;
        match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => Err(Refused::Full(delivery)),
            error => Err(Refused::Client(delivery, error)),
        }
    }

    /// Looks whether the cluster lives, beside everything else, when it is time to; makes a client
    /// that failed for good anew.
    pub(super) fn look_after(self: &Arc<Self>) {
        let now = self.vitals.now_ms();
        if !self.vitals.breaker.lock().probe_is_due(now) || self.vitals.probing.swap(true, Ordering::AcqRel) {
            return;
        }
        let cluster = self.clone();
        let spawned =
            std::thread::Builder::new().name(format!("prism-probe-{}", self.name)).spawn(move || {
                let alive = cluster.probe();
                cluster.vitals.change(|breaker, now| breaker.probed(now, alive));
                cluster.vitals.probing.store(false, Ordering::Release);
            });
        if spawned.is_err() {
            self.vitals.probing.store(false, Ordering::Release);
        }
    }

    fn probe(&self) -> bool {
        let Some(client) = self.client.read().clone() else { return false };
        if let Some((code, why)) = client.client().fatal_error() {
            let why = self.settings.redaction().apply(&why);
            tracing::warn!(cluster = %self.name, %code, %why, "the producer failed for good; it is made anew");
            drop_elsewhere(Some(client));
            if let Err(error) = self.connect() {
                tracing::warn!(%error, "the producer cannot be made anew");
            }
            return false;
        }
        let alive = client.client().fetch_metadata(None, PROBE_BOUND).is_ok();
        drop_elsewhere(Some(client));
        alive
    }

    /// Waits until everything is delivered or failed, at most `bound`.
    pub(super) fn flush(&self, bound: Duration) {
        if let Some(client) = self.client.read().clone() {
            if client.flush(bound).is_err() {
                tracing::warn!(cluster = %self.name, "records were not delivered before the end");
            }
            drop_elsewhere(Some(client));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop_elsewhere(self.client.get_mut().take());
    }
}

/// Drops a client on a thread of its own: the drop waits for the client's thread, which may be the
/// one that we are on.
fn drop_elsewhere(client: Option<Arc<Client>>) {
    if let Some(client) = client.and_then(Arc::into_inner) {
        let spawned = std::thread::Builder::new().name("prism-drop".into()).spawn(move || drop(client));
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to end a producer on");
        }
    }
}

fn unusable() -> KafkaError {
    KafkaError::MessageProduction(RDKafkaErrorCode::AllBrokersDown)
}

impl Vitals {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn change(&self, change: impl FnOnce(&mut Breaker, u64)) {
        let now = self.now_ms();
        let (before, after) = {
            let mut breaker = self.breaker.lock();
            let before = breaker.health();
            change(&mut breaker, now);
            (before, breaker.health())
        };
        self.open.set(i64::from(after != Health::Closed));
        if before != after {
            tracing::info!(cluster = %self.name, ?before, ?after, "circuit breaker");
        }
    }
}

fn client_settings(address: &Address, router: &RouterConfig) -> Result<ClientSettings> {
    let mut config = producer_config(address, router.limits.in_flight_bytes.saturating_mul(2))?;
    let attempt = router.attempt_timeout.as_millis().to_string();
    config
        .set("queue.buffering.max.messages", CLIENT_MESSAGES_MAX)
        .set("message.timeout.ms", attempt)
        .set("allow.auto.create.topics", "false");
    if !config.has("partitioner") {
        config.set("partitioner", "murmur2_random");
    }
    if !config.has("message.max.bytes") {
        let bytes = router.limits.record_bytes.saturating_add(64 << 10).max(1_000_000);
        config.set("message.max.bytes", bytes.to_string());
    }
    Ok(config)
}

fn base_record<'a>(
    topic: &'a str,
    record: &'a Record,
    delivery: Box<Delivery>,
) -> BaseRecord<'a, [u8], [u8], Box<Delivery>> {
    let mut out = BaseRecord::with_opaque_to(topic, delivery);
    out.key = record.key.as_deref();
    out.payload = record.value.as_deref();
    out.timestamp = record.timestamp_ms;
    let count = record.headers.len() + usize::from(record.id.is_some());
    if count > 0 {
        let mut headers = OwnedHeaders::new_with_capacity(count);
        for header in &record.headers {
            headers = headers.insert(Header { key: &header.key, value: header.value.as_deref() });
        }
        if let Some(id) = &record.id {
            let id = RecordId { producer: &id.producer, epoch: id.epoch, sequence: id.sequence };
            headers = headers.insert(Header { key: RECORD_ID_HEADER, value: Some(&id.encode()) });
        }
        out.headers = Some(headers);
    }
    out
}

/// What the client calls back.
pub(super) struct DeliveryContext {
    log: RedactedLog,
    vitals: Arc<Vitals>,
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, line: &str) {
        self.log.line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let reason = self.log.redaction.apply(reason);
        tracing::debug!(cluster = %self.vitals.name, %error, %reason, "producer in trouble");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.vitals.change(Breaker::unreachable);
        }
    }

    /// They name the client, and nobody reads them here.
    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        self.vitals.in_flight.add(-1);
        match result {
            Ok(message) => {
                self.vitals.acknowledged.add(1);
                self.vitals.change(|breaker, _| breaker.succeeded());
                let done = outcome::acknowledged(&self.vitals.name, message.partition(), message.offset());
                delivery.done(done);
            }
            Err((error, _)) => {
                self.vitals.failures.add(1);
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                if outcome::fault(code) == Fault::Cluster {
                    self.vitals.change(Breaker::failed);
                } else {
                    self.vitals.change(|breaker, _| breaker.succeeded());
                }
                delivery.failed_at(&self.vitals.name, code);
            }
        }
    }
}
