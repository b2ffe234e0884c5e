//! What an instance counts.

use thalweg_engine::metrics::{Counter, Gauge, MetricGroup};
use thalweg_engine::time::Micros;

use super::gather::Cut;
use super::worker::Done;

/// Batches, their waits and what the device did.
pub(super) struct PipelineMetrics {
    pub rejected: Counter,
    pub device_bytes: Gauge,
    batches: Counter,
    rows: Counter,
    batch_rows: Gauge,
    queued: Counter,
    device: Counter,
    copied: Counter,
    under_way: Gauge,
}

impl PipelineMetrics {
    pub(super) fn new(group: &MetricGroup) -> PipelineMetrics {
        PipelineMetrics {
            rejected: group.counter("tensor_rejected_rows_total", "Rows that a transform did not take."),
            device_bytes: group.gauge("tensor_device_bytes", "Bytes held on the device: weights, scratch."),
            batches: group.counter("tensor_batches_total", "Batches computed."),
            rows: group.counter("tensor_rows_total", "Rows computed."),
            batch_rows: group.gauge("tensor_batch_rows", "Rows of the last batch."),
            queued: group.counter(
                "tensor_queue_micros_total",
                "From the first row of a batch until it is handed over, summed over batches.",
            ),
            device: group.counter("tensor_device_micros_total", "How long the device computed."),
            copied: group.counter("tensor_copied_bytes_total", "Bytes copied to the device and back."),
            under_way: group.gauge("tensor_batches_under_way", "Batches handed over and not done."),
        }
    }

    /// A batch goes to the worker.
    pub(super) fn handed(&self, cut: &Cut, now: Micros) {
        self.under_way.add(1);
        self.queued.add(u64::try_from(now - cut.since).unwrap_or(0));
    }

    /// A batch is done.
    pub(super) fn done(&self, done: &Done) {
        self.under_way.add(-1);
        self.batches.add(1);
        self.rows.add(done.cut.rows as u64);
        self.batch_rows.set(done.cut.rows as i64);
        self.device.add(u64::try_from(done.computed.device_time.as_micros()).unwrap_or(u64::MAX));
        self.copied.add(done.computed.copied_bytes as u64);
        self.device_bytes.set(i64::try_from(done.device_bytes).unwrap_or(i64::MAX));
    }
}
