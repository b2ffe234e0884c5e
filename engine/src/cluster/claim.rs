//! A driver's way to its job's claim: asked for, and asked for again while the store is away.

use super::store_wait::{StoreDecision, StoreWait};
use crate::time::Micros;
use crate::{Error, ErrorKind};

/// How far a driver is with its claim.
pub(super) struct Claim {
    wait: StoreWait,
    /// When to ask; `None`: somebody asks, or the answer is there.
    ask_at: Option<Micros>,
}

impl Claim {
    /// A claim to be made at `now`, which gives up at another time.
    pub(super) fn new(now: Micros, give_up_at: Micros) -> Claim {
        Claim { wait: StoreWait::at_start(give_up_at), ask_at: Some(now) }
    }

    /// When to ask.
    pub(super) fn ask_at(&self) -> Option<Micros> {
        self.ask_at
    }

    /// Whether it is time to ask: the caller does.
    pub(super) fn is_due(&mut self, now: Micros) -> bool {
        self.ask_at.take_if(|at| *at <= now).is_some()
    }

    /// It was not granted. Returns whether it is asked for again.
    pub(super) fn failed(&mut self, now: Micros, error: &Error) -> bool {
        if error.kind() != ErrorKind::Store {
            return false;
        }
        let StoreDecision::RetryAt(at) = self.wait.failed(now, !error.is_retryable()) else { return false };
        if self.wait.say(now).is_some() {
            tracing::warn!(%error, "waiting for the checkpoint store");
        }
        self.ask_at = Some(at);
        true
    }
}
