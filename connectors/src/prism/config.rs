//! What a router and a gateway are configured with. Plain data; `config_document` reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use thalweg_engine::{Error, Result};

use super::breaker::BreakerConfig;

/// What a call that waits may have sent of its request: the gateway holds it meanwhile.
pub(super) const CALL_WINDOW_BYTES: u32 = 64 << 10;
/// Calls of a gateway, unless it is told otherwise.
const CALLS: usize = 1_024;
/// The program itself, and some hundred connections.
const BASE_BYTES: usize = 80 << 20;
/// Share of the memory that calls may take before there is room for them.
const CALLS_PERCENT: usize = 12;
/// Share of the memory that is left to the allocator.
const RESERVE_PERCENT: usize = 15;
/// What a request that is under way takes, in its own bytes.
const HELD_TIMES: usize = 3;

/// What Prism takes and holds. Everything has a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one request, as it travels.
    pub request_bytes: usize,
    /// Bytes of one record: key, value and headers.
    pub record_bytes: usize,
    /// Records of one request.
    pub records: usize,
    /// Bytes of all records that are not acknowledged yet.
    pub in_flight_bytes: usize,
}

impl Default for Limits {
    /// 4 MiB a request, 900 kB a record, 20,000 records, 64 MiB in flight.
    fn default() -> Self {
        Limits { request_bytes: 4 << 20, record_bytes: 900_000, records: 20_000, in_flight_bytes: 64 << 20 }
    }
}

/// How records find their clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// The topology file; watched.
    pub topology: PathBuf,
    /// Each cluster's share; 1 unless named. 0: a standby.
    pub weights: BTreeMap<String, u32>,
    /// What is taken and held.
    pub limits: Limits,
    /// How long one cluster may take for a record before another is tried. At least a second, or
    /// so: the client looks for records that took too long about once a second.
    pub attempt_timeout: Duration,
    /// How long a request waits for room before it is refused.
    pub room_wait: Duration,
    /// When a cluster counts as ill.
    pub breaker: BreakerConfig,
}

impl RouterConfig {
    /// A router over the clusters of a topology file, with the defaults: 3 s an attempt, 1 s for
    /// room.
    pub fn new(topology: impl Into<PathBuf>) -> Self {
        RouterConfig {
            topology: topology.into(),
            weights: BTreeMap::new(),
            limits: Limits::default(),
            attempt_timeout: Duration::from_secs(3),
            room_wait: Duration::from_secs(1),
            breaker: BreakerConfig::default(),
        }
    }
}

/// A gateway: where it listens, and its router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayConfig {
    /// `address:port`; port 0 takes a free one.
    pub listen: String,
    /// The router behind it. Requests that are read or dealt with have, together, at most
    /// `limits.in_flight_bytes`.
    pub router: RouterConfig,
    /// Calls that may be under way, those that wait for room among them.
    pub calls: usize,
}

impl GatewayConfig {
    /// A gateway with the router's defaults, and 1,024 calls.
    pub fn new(listen: impl Into<String>, topology: impl Into<PathBuf>) -> Self {
        GatewayConfig { listen: listen.into(), router: RouterConfig::new(topology), calls: CALLS }
    }

    /// Divides a process's memory, in bytes. The program comes off, and what calls have sent before
    /// there is room for them; a request that is under way takes three times its bytes: as it came,
    /// in the clients of the brokers, and what is kept beside its records.
    ///
    /// # Errors
    /// A user error that says how much is needed, when that leaves no room for a request.
    pub fn with_memory(mut self, bytes: usize) -> Result<Self> {
        let limits = &mut self.router.limits;
        let percent = 100 - RESERVE_PERCENT - CALLS_PERCENT;
        self.calls = bytes / 100 * CALLS_PERCENT / CALL_WINDOW_BYTES as usize;
        limits.in_flight_bytes = (bytes / 100 * percent).saturating_sub(BASE_BYTES) / HELD_TIMES;
        if limits.in_flight_bytes >= limits.request_bytes {
            return Ok(self);
        }
        let needed = (BASE_BYTES + HELD_TIMES * limits.request_bytes) / percent * 100 + 100;
        Err(Error::user(format!(
            "{bytes} bytes of memory are too few: requests of {} bytes need {needed}",
            limits.request_bytes
        )))
    }
}
