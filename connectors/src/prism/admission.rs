//! Room for requests before they are read: bounded in bytes, shared fairly between clients, refused
//! when none comes.
//!
//! The rules: a client may hold as much as is left free, so one that is alone may hold half of the
//! room, two a third each, and there is always some for a newcomer (the dynamic thresholds of
//! Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998);
//! a client that holds nothing may take whatever is free. Room that is given back goes to who
//! waits and holds least, and nobody overtakes him with something smaller.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use thalweg_engine::metrics::{Counter, Gauge, MetricGroup};
use tokio::sync::oneshot;

/// Who asks: a connection, for there is nothing else yet to tell clients apart by.
pub(super) type Client = Option<SocketAddr>;

/// Who holds how much, and who waits. Pure; `T` is how somebody who waits is told.
struct Room<T> {
    free: usize,
    held: BTreeMap<Client, usize>,
    waiting: Vec<Waiting<T>>,
    /// Counts who asks.
    asked: u64,
}

struct Waiting<T> {
    client: Client,
    bytes: usize,
    number: u64,
    tell: T,
}

impl<T> Room<T> {
    fn new(bytes: usize) -> Room<T> {
        Room { free: bytes, held: BTreeMap::new(), waiting: Vec::new(), asked: 0 }
    }

    fn held_by(&self, client: Client) -> usize {
        self.held.get(&client).copied().unwrap_or(0)
    }

    fn fits(&self, client: Client, bytes: usize) -> bool {
        let held = self.held_by(client);
        bytes <= self.free && (held == 0 || held + bytes <= self.free - bytes)
    }

    fn take(&mut self, client: Client, bytes: usize) {
        self.free -= bytes;
        *self.held.entry(client).or_default() += bytes;
    }

    /// Takes room at once, if nobody waits who holds less.
    fn try_take(&mut self, client: Client, bytes: usize) -> bool {
        let held = self.held_by(client);
        let is_first = self.waiting.iter().all(|other| self.held_by(other.client) > held);
        let taken = is_first && self.fits(client, bytes);
        if taken {
            self.take(client, bytes);
        }
        taken
    }

    fn wait(&mut self, client: Client, bytes: usize, tell: T) {
        self.asked += 1;
        self.waiting.push(Waiting { client, bytes, number: self.asked, tell });
    }

    fn give_back(&mut self, client: Client, bytes: usize) {
        self.free += bytes;
        if let Some(held) = self.held.get_mut(&client) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.held.remove(&client);
            }
        }
    }

    /// Whose turn it is, if there is room for him.
    fn next(&mut self) -> Option<Waiting<T>> {
        let turn = |(_, waiting): &(usize, &Waiting<T>)| (self.held_by(waiting.client), waiting.number);
        let (index, first) = self.waiting.iter().enumerate().min_by_key(turn)?;
        let (client, bytes) = (first.client, first.bytes);
        if !self.fits(client, bytes) {
            return None;
        }
        self.take(client, bytes);
        Some(self.waiting.remove(index))
    }
}

/// Why a request is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are too many calls.
    Calls(usize),
    /// There was no room for it in time.
    Room(usize),
}

/// What there is room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdmissionLimits {
    /// Bytes of all requests that are being read or dealt with.
    pub(super) bytes: usize,
    /// Calls, those that wait among them.
    pub(super) calls: usize,
    /// How long a request waits for room.
    pub(super) wait: Duration,
}

struct Shared {
    limits: AdmissionLimits,
    room: Mutex<Room<oneshot::Sender<Permit>>>,
    calls: Mutex<usize>,
    calls_now: Gauge,
    held: Gauge,
    refused: Counter,
}

/// The gateway's room.
#[derive(Clone)]
pub(super) struct Admission(Arc<Shared>);

/// Bytes of room, given back when it is dropped.
pub(super) struct Permit {
    shared: Arc<Shared>,
    client: Client,
    bytes: usize,
}

/// A call that counts until it is dropped.
pub(super) struct Call(Arc<Shared>);

impl Admission {
    /// Room that nobody holds.
    pub(super) fn new(limits: AdmissionLimits, metrics: &MetricGroup) -> Admission {
        Admission(Arc::new(Shared {
            room: Mutex::new(Room::new(limits.bytes)),
            calls: Mutex::new(0),
            calls_now: metrics.gauge("prism_calls", "Calls under way, those that wait for room among them."),
            held: metrics.gauge("prism_admitted_bytes", "Bytes of requests that are read or dealt with."),
            refused: metrics.counter(
                "prism_calls_refused_total",
                "Calls refused before they were read, for want of room.",
            ),
            limits,
        }))
    }

    /// Counts a call in.
    ///
    /// # Errors
    /// When there are too many.
    pub(super) fn call(&self) -> Result<Call, Refused> {
        let mut calls = self.0.calls.lock();
        if *calls >= self.0.limits.calls {
            self.0.refused.add(1);
            return Err(Refused::Calls(self.0.limits.calls));
        }
        *calls += 1;
        self.0.calls_now.set(i64::try_from(*calls).unwrap_or(i64::MAX));
        Ok(Call(self.0.clone()))
    }

    /// Takes room for a request, as soon as there is some.
    ///
    /// # Errors
    /// When there was none in time.
    pub(super) async fn take(&self, client: Client, bytes: usize) -> Result<Permit, Refused> {
        let bytes = bytes.min(self.0.limits.bytes);
        let told = {
            let mut room = self.0.room.lock();
            room.waiting.retain(|waiting| !waiting.tell.is_closed());
            if room.try_take(client, bytes) {
                drop(room);
                self.0.show();
                return Ok(Permit { shared: self.0.clone(), client, bytes });
            }
            let (tell, told) = oneshot::channel();
            room.wait(client, bytes, tell);
            told
        };
        let permit = tokio::time::timeout(self.0.limits.wait, told).await;
        permit.ok().and_then(Result::ok).ok_or_else(|| {
            self.0.refused.add(1);
            Refused::Room(self.0.limits.bytes)
        })
    }
}

impl Shared {
    fn show(&self) {
        let held = self.limits.bytes - self.room.lock().free;
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }

    /// Gives room to those whose turn it is. One who has given up gives his back at once.
    fn deal(self: &Arc<Self>) {
        loop {
            let next = {
                let mut room = self.room.lock();
                room.waiting.retain(|waiting| !waiting.tell.is_closed());
                room.next()
            };
            let Some(Waiting { client, bytes, tell, .. }) = next else { break };
            let _given_up = tell.send(Permit { shared: self.clone(), client, bytes });
        }
        self.show();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.room.lock().give_back(self.client, self.bytes);
        self.shared.deal();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut calls = self.0.calls.lock();
        *calls = calls.saturating_sub(1);
        self.0.calls_now.set(i64::try_from(*calls).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
