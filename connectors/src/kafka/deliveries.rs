//! What became of the records that were sent: counted by epoch (what lies between two barriers),
//! told by the client's own thread, waited for by snapshots.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::message::Message as _;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use thalweg_engine::checkpoint::Cancellation;
use thalweg_engine::operator::Waker;
use thalweg_engine::{Error, Result};

use super::client_settings::RedactedLog;

/// Longest wait for room before the task is asked again.
const ROOM_WAIT: Duration = Duration::from_millis(5);
/// A waiting snapshot looks again after this time, should a notice be lost.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How many records of an epoch are under way.
#[derive(Debug, Default)]
pub(crate) struct Epoch(AtomicU64);

impl Epoch {
    /// One more.
    pub fn sent(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// It was not sent after all.
    pub fn not_sent(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether none is under way.
    pub fn is_delivered(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    /// One less. True when it was the last.
    fn delivered(&self) -> bool {
        self.0.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// The shared end of a sink's deliveries.
#[derive(Debug)]
pub(crate) struct Deliveries {
    failure: Mutex<Option<String>>,
    changed: Condvar,
    waker: Waker,
}

impl Deliveries {
    /// None yet; `waker` wakes the sink's task when one fails.
    pub fn new(waker: &Waker) -> Self {
        Deliveries { failure: Mutex::new(None), changed: Condvar::new(), waker: waker.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every delivery so far was good.
    ///
    /// # Errors
    /// An external error that names cluster, topic and partition of the first that was not.
    pub fn check(&self) -> Result<()> {
        match &*self.lock() {
            Some(failure) => Err(Error::external(failure.clone())),
            None => Ok(()),
        }
    }

    /// Waits until all records of `epochs` are delivered. Bounded by the client's own
    /// `message.timeout.ms`, after which a record counts as failed, and by its cancellation.
    ///
    /// # Errors
    /// As [`Deliveries::check`], and when it was cancelled.
    pub fn wait(&self, epochs: &[Arc<Epoch>], cancelled: &Cancellation) -> Result<()> {
        let mut failure = self.lock();
        while failure.is_none() && !epochs.iter().all(|epoch| epoch.is_delivered()) {
            cancelled.check()?;
            let waited = self.changed.wait_timeout(failure, LOOK_AGAIN);
            failure = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(failure);
        self.check()
    }

    /// Waits a moment for some records to be delivered.
    pub fn wait_for_room(&self) {
        let _waited = self.changed.wait_timeout(self.lock(), ROOM_WAIT);
    }

    fn fail(&self, failure: String) {
        self.lock().get_or_insert(failure);
        self.changed.notify_all();
        self.waker.wake();
    }
}

/// What the client calls back.
pub(crate) struct DeliveryContext {
    pub cluster: String,
    pub log: RedactedLog,
    pub deliveries: Arc<Deliveries>,
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, line: &str) {
        self.log.line(level, facility, line);
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        let reason = self.log.redaction.apply(reason);
        tracing::warn!(cluster = %self.cluster, %error, %reason, "Kafka producer in trouble");
    }

    /// They name the client, and nobody reads them here.
    fn stats_raw(&self, _: &[u8]) {}
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Arc<Epoch>;

    fn delivery(&self, result: &DeliveryResult<'_>, epoch: Arc<Epoch>) {
        if let Err((error, message)) = result {
            let (topic, partition) = (message.topic(), message.partition());
            self.deliveries
                .fail(format!("{}/{topic}/{partition}: a record was not delivered: {error}", self.cluster));
        }
        if epoch.delivered() {
            drop(self.deliveries.lock());
            self.deliveries.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_waits_for_its_epochs_and_hears_of_failures() {
        let deliveries = Arc::new(Deliveries::new(&Waker::new(|| {})));
        let epochs = [Arc::new(Epoch::default()), Arc::new(Epoch::default())];
        epochs.iter().for_each(|epoch| epoch.sent());
        let (waiting, awaited) = (deliveries.clone(), epochs.clone());
        let (patient, given_up) = (Cancellation::default(), Cancellation::default());
        given_up.cancel();
        assert!(deliveries.wait(&epochs, &given_up).is_err());
        let waited_with = patient.clone();
        let waiter = std::thread::spawn(move || waiting.wait(&awaited, &waited_with));
        assert!(epochs[1].delivered());
        assert!(!waiter.is_finished(), "one is still under way");
        assert!(epochs[0].delivered());
        waiter.join().unwrap().unwrap();
        epochs[0].sent();
        deliveries.fail("east/t/1: no".into());
        assert_eq!(deliveries.wait(&epochs, &patient).unwrap_err().to_string(), "east/t/1: no");
    }
}
