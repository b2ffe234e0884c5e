//! What a router and a gateway are configured with. Plain data; `config_document` reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::breaker::BreakerConfig;

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
    /// The router behind it.
    pub router: RouterConfig,
}

impl GatewayConfig {
    /// A gateway with the router's defaults.
    pub fn new(listen: impl Into<String>, topology: impl Into<PathBuf>) -> Self {
        GatewayConfig { listen: listen.into(), router: RouterConfig::new(topology) }
    }
}
