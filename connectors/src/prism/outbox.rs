//! Records on their way to Prism: bounded in bytes, published in batches, again and again until
//! each is acknowledged.
//!
//! The rules: nothing is dropped; a record that Prism refuses for good is a failure that stays.
//! Records of one key go through one lane, and a lane has one batch under way at a time, so they
//! keep their order (P7). Records are counted by ticket (an epoch, a commit), so that one can wait
//! for all of a ticket's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use thalweg_engine::metrics::{Counter, Gauge, MetricGroup};
use thalweg_engine::operator::Waker;
use thalweg_engine::{Error, Result};
use thalweg_proto::prism::record_result::Outcome;
use thalweg_proto::prism::{Record, RecordResult};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::outcome::held_bytes;
use super::route::key_hash;
use super::target::{PublishError, Publisher, runtime};

/// Batches under way at the same time.
const LANES: usize = 4;
/// A batch is sent when it holds so many records, or there are no more.
const BATCH_RECORDS: usize = 4096;
/// A batch holds at most so many bytes, or one record.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Batches that are under way are encoded: all of them take at most this part of the outbox's bytes.
const ENCODED_PART: usize = 4;
/// The first wait before a batch is tried again.
const BACKOFF: Duration = Duration::from_millis(20);
/// The longest one.
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Longest wait for room before the caller is asked again.
const ROOM_WAIT: Duration = Duration::from_millis(5);
/// Who waits for a ticket looks this often whether to give up.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The lane of a record.
fn lane(record: &Record, turn: usize) -> usize {
    let number = record.key.as_ref().map_or(turn as u64, |key| key_hash(key) >> 32);
    (number % LANES as u64) as usize
}

struct Parcel {
    ticket: u64,
    record: Record,
}

#[derive(Default)]
struct State {
    lanes: [VecDeque<Parcel>; LANES],
    held_bytes: usize,
    /// Records not yet acknowledged, by ticket.
    open: BTreeMap<u64, u64>,
    failure: Option<String>,
    /// Somebody was refused and wants to be woken.
    stalled: bool,
    turn: usize,
}

struct Shared {
    topic: String,
    publisher: Publisher,
    bytes_max: usize,
    batch_bytes: usize,
    state: Mutex<State>,
    changed: Condvar,
    work: [Notify; LANES],
    closed: AtomicBool,
    waker: Waker,
    acknowledged: Counter,
    retried: Counter,
    held: Gauge,
}

/// Records on their way. Dropped, it forgets what is not acknowledged; who waits is told.
pub(super) struct Outbox {
    shared: Arc<Shared>,
    lanes: Vec<AbortHandle>,
}

impl Outbox {
    /// An outbox for a logical topic that holds at most `bytes_max`, or one record. `waker` is
    /// used when there is room again, and when something failed.
    pub(super) fn new(
        publisher: Publisher,
        topic: &str,
        bytes_max: usize,
        waker: Waker,
        metrics: &MetricGroup,
    ) -> Result<Outbox> {
        let shared = Arc::new(Shared {
            topic: topic.to_owned(),
            publisher,
            bytes_max,
            batch_bytes: (bytes_max / (ENCODED_PART * LANES)).min(BATCH_BYTES_MAX),
            state: Mutex::default(),
            changed: Condvar::new(),
            work: Default::default(),
            closed: AtomicBool::new(false),
            waker,
            acknowledged: metrics
                .counter("prism_sink_acknowledged_total", "Records that Prism acknowledged."),
            retried: metrics.counter("prism_sink_retried_total", "Records that were published again."),
            held: metrics.gauge("prism_sink_held_bytes", "Bytes of records not yet acknowledged."),
        });
        let runtime = runtime()?;
        let lanes = (0..LANES).map(|lane| runtime.spawn(run_lane(shared.clone(), lane)).abort_handle());
        Ok(Outbox { lanes: lanes.collect(), shared })
    }

    /// Takes records from the front as long as there is room; true when it took all.
    ///
    /// # Errors
    /// A failure that stays, see [`Outbox::check`].
    pub(super) fn push(&self, ticket: u64, records: &mut VecDeque<Record>) -> Result<bool> {
        let mut state = self.shared.state.lock();
        self.shared.check(&state)?;
        state.turn = state.turn.wrapping_add(1);
        let mut touched = [false; LANES];
        let mut taken = 0;
        while let Some(record) = records.front() {
            let bytes = held_bytes(record);
            if state.held_bytes > 0 && state.held_bytes + bytes > self.shared.bytes_max {
                state.stalled = true;
                break;
            }
            let lane = lane(record, state.turn);
            let Some(record) = records.pop_front() else { break };
            state.held_bytes += bytes;
            state.lanes[lane].push_back(Parcel { ticket, record });
            touched[lane] = true;
            taken += 1;
        }
        *state.open.entry(ticket).or_default() += taken;
        self.shared.held.set(i64::try_from(state.held_bytes).unwrap_or(i64::MAX));
        drop(state);
        let touched = touched.iter().zip(&self.shared.work).filter(|(touched, _)| **touched);
        touched.for_each(|(_, work)| work.notify_one());
        Ok(records.is_empty())
    }

    /// Whether nothing failed so far.
    ///
    /// # Errors
    /// An external error with what failed first; it stays.
    pub(super) fn check(&self) -> Result<()> {
        self.shared.check(&self.shared.state.lock())
    }

    /// Waits a moment for room.
    pub(super) fn wait_for_room(&self) {
        let mut state = self.shared.state.lock();
        let _timed_out = self.shared.changed.wait_for(&mut state, ROOM_WAIT);
    }

    /// What waits for tickets, also on another thread.
    pub(super) fn awaiter(&self) -> Awaiter {
        Awaiter(self.shared.clone())
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.lanes.iter().for_each(AbortHandle::abort);
        drop(self.shared.state.lock());
        self.shared.changed.notify_all();
    }
}

/// Waits for the records of tickets.
pub(super) struct Awaiter(Arc<Shared>);

impl Awaiter {
    /// Waits until all records of tickets up to `ticket` are acknowledged.
    ///
    /// # Errors
    /// A failure that stays, or that the outbox is gone or `give_up` said so.
    pub(super) fn wait(&self, ticket: u64, give_up: &dyn Fn() -> bool) -> Result<()> {
        let mut state = self.0.state.lock();
        loop {
            self.0.check(&state)?;
            if state.open.range(..=ticket).all(|(_, &open)| open == 0) {
                state.open.retain(|&other, &mut open| other > ticket || open > 0);
                return Ok(());
            }
            if give_up() {
                let open: u64 = state.open.range(..=ticket).map(|(_, open)| open).sum();
                let what = format!("gave up waiting for {open} records that Prism has not acknowledged");
                return Err(Error::external(what));
            }
            let _timed_out = self.0.changed.wait_for(&mut state, LOOK_AGAIN);
        }
    }
}

impl Shared {
    fn check(&self, state: &State) -> Result<()> {
        match &state.failure {
            Some(failure) => Err(Error::external(failure.clone()).permanent()),
            None if self.closed.load(Ordering::Acquire) => Err(Error::external("the sink is gone")),
            None => Ok(()),
        }
    }

    fn fail(&self, failure: String) {
        self.state.lock().failure.get_or_insert(failure);
        self.changed.notify_all();
        self.waker.wake();
    }

    fn take(&self, lane: usize) -> Vec<Parcel> {
        let mut state = self.state.lock();
        let (mut bytes, mut parcels) = (0, Vec::new());
        while let Some(parcel) = state.lanes[lane].front() {
            bytes += held_bytes(&parcel.record);
            if parcels.len() == BATCH_RECORDS || (!parcels.is_empty() && bytes > self.batch_bytes) {
                break;
            }
            parcels.extend(state.lanes[lane].pop_front());
        }
        parcels
    }

    /// Takes results in. Returns the records that must be published again, in their order, and
    /// the last reason.
    fn settle(&self, parcels: Vec<Parcel>, results: Vec<RecordResult>) -> (Vec<Parcel>, String) {
        let (mut left, mut reason) = (Vec::new(), String::new());
        let (mut bytes, mut done) = (0, 0);
        let mut failure = None;
        let mut by_ticket: BTreeMap<u64, u64> = BTreeMap::new();
        for (parcel, result) in parcels.into_iter().zip(results) {
            match result.outcome {
                Some(Outcome::Ok(_)) => {
                    bytes += held_bytes(&parcel.record);
                    done += 1;
                    *by_ticket.entry(parcel.ticket).or_default() += 1;
                }
                Some(Outcome::Error(error)) if !error.retryable => {
                    failure.get_or_insert(error.message);
                }
                Some(Outcome::Error(error)) => {
                    reason = error.message;
                    left.push(parcel);
                }
                None => {
                    reason = "a record got no result".to_string();
                    left.push(parcel);
                }
            }
        }
        self.acknowledged.add(done);
        let mut state = self.state.lock();
        state.held_bytes = state.held_bytes.saturating_sub(bytes);
        for (ticket, done) in by_ticket {
            if let Some(open) = state.open.get_mut(&ticket) {
                *open = open.saturating_sub(done);
            }
        }
        self.held.set(i64::try_from(state.held_bytes).unwrap_or(i64::MAX));
        let stalled = bytes > 0 && std::mem::take(&mut state.stalled);
        drop(state);
        self.changed.notify_all();
        if stalled {
            self.waker.wake();
        }
        if let Some(failure) = failure {
            self.fail(format!("Prism refuses a record for topic {:?}: {failure}", self.topic));
        }
        (left, reason)
    }

    async fn deliver(&self, mut parcels: Vec<Parcel>) {
        let mut backoff = BACKOFF;
        loop {
            let count = parcels.len();
            let records: Arc<[Record]> = parcels.iter().map(|parcel| parcel.record.clone()).collect();
            let reason;
            match self.publisher.publish(&self.topic, records).await {
                Ok(results) => (parcels, reason) = self.settle(parcels, results),
                Err(PublishError::Away(why)) => reason = why,
                Err(PublishError::Refused(why)) => {
                    return self.fail(format!("topic {:?}: {why}", self.topic));
                }
            }
            if parcels.is_empty() || self.state.lock().failure.is_some() {
                return;
            }
            if parcels.len() < count {
                backoff = BACKOFF;
            }
            self.retried.add(parcels.len() as u64);
            if backoff == BACKOFF {
                tracing::warn!(topic = self.topic, records = parcels.len(), reason, "publishing again");
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

async fn run_lane(shared: Arc<Shared>, lane: usize) {
    while !shared.closed.load(Ordering::Acquire) {
        let parcels = shared.take(lane);
        if parcels.is_empty() {
            shared.work[lane].notified().await;
        } else {
            shared.deliver(parcels).await;
        }
    }
}
