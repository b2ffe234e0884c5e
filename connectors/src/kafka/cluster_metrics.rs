//! What a reader counts for each cluster (F11). Every metric exists, at 0, as soon as the
//! topology lists the cluster.

use thalweg_engine::metrics::{Counter, Gauge, MetricGroup};

use crate::bad_times::BadTimes;

/// Counters and gauges labelled with a cluster.
pub(crate) struct ClusterMetrics {
    pub records: Counter,
    pub bytes: Counter,
    pub bad_records: Counter,
    pub bad_times: BadTimes,
    pub tombstones_dropped: Counter,
    pub transport_errors: Counter,
    pub connects: Counter,
    pub offset_resets: Counter,
    pub outages: Counter,
    pub returns: Counter,
    pub lag: Gauge,
    pub up: Gauge,
    pub splits: Gauge,
}

impl ClusterMetrics {
    /// The metrics of `cluster`.
    pub fn new(group: &MetricGroup, cluster: &str) -> Self {
        let group = group.with("cluster", cluster);
        ClusterMetrics {
            records: group.counter("kafka_records_total", "Records read."),
            bytes: group.counter("kafka_bytes_total", "Bytes of the values read."),
            bad_records: group.counter("kafka_bad_records_total", "Records that could not be decoded."),
            bad_times: BadTimes::new(&group),
            tombstones_dropped: group
                .counter("kafka_tombstones_dropped_total", "Records without a value that were left out."),
            transport_errors: group.counter("kafka_transport_errors_total", "Errors of the client."),
            connects: group.counter("kafka_connects_total", "Consumers made."),
            offset_resets: group
                .counter("kafka_offset_resets_total", "Times that reading went back: the offset was gone."),
            outages: group.counter("kafka_outages_total", "Times that the cluster went away."),
            returns: group.counter("kafka_returns_total", "Times that the cluster came back."),
            lag: group.gauge("kafka_lag_records", "Records not yet read, as of the last fetch."),
            up: group.gauge("kafka_cluster_up", "1 when the cluster is reached."),
            splits: group.gauge("kafka_splits", "Partitions that the task holds."),
        }
    }
}
