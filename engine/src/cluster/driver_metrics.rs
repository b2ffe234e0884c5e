//! What a job's driver shows of its checkpoints and restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::coordinator::Coordinator;
use crate::checkpoint::CheckpointId;
use crate::metrics::{Counter, Gauge, Registry};
use crate::runtime::Clock;
use crate::time::Micros;

/// The metrics of one job.
pub(super) struct DriverMetrics {
    checkpoints: Counter,
    checkpoints_failed: Counter,
    /// How many of this driver's the counter has.
    failures_shown: u64,
    restarts: Gauge,
    last_checkpoint: Gauge,
    last_duration: Gauge,
    /// When the newest checkpoint was published; before the first, when the job was started.
    published_at: Arc<AtomicI64>,
}

impl DriverMetrics {
    /// Those of a job that starts now.
    pub(super) fn new(registry: &Registry, job: &str, clock: Arc<dyn Clock>) -> DriverMetrics {
        let group = registry.group(vec![("job", job.to_string())]);
        let published_at = Arc::new(AtomicI64::new(clock.monotonic()));
        let since = published_at.clone();
        group.computed_gauge(
            "last_checkpoint_age_us",
            "Microseconds since the newest checkpoint was published; since the start, before the first.",
            move || clock.monotonic() - since.load(Ordering::Relaxed),
        );
        DriverMetrics {
            checkpoints: group.counter("checkpoints_completed_total", "Checkpoints published."),
            checkpoints_failed: group.counter(
                "checkpoints_failed_total",
                "Checkpoints aborted, or published or not for all that is known.",
            ),
            failures_shown: 0,
            restarts: group.gauge("restarts", "Restarts of the job's tasks in this generation."),
            last_checkpoint: group.gauge("last_checkpoint", "Number of the newest published checkpoint."),
            last_duration: group.gauge("last_publish_us", "How long publishing the newest checkpoint took."),
            published_at,
        }
    }

    /// A checkpoint was published, which was begun at `since`.
    pub(super) fn published(&self, checkpoint: CheckpointId, now: Micros, since: Micros) {
        self.checkpoints.add(1);
        self.last_checkpoint.set(i64::try_from(checkpoint.number).unwrap_or(i64::MAX));
        self.last_duration.set(now - since);
        self.published_at.store(now, Ordering::Relaxed);
    }

    /// Shows what the coordinator counts.
    pub(super) fn follow(&mut self, coordinator: &Coordinator) {
        self.restarts.set(i64::from(coordinator.restarts()));
        let failures = coordinator.checkpoint_failures();
        self.checkpoints_failed.add(failures - self.failures_shown);
        self.failures_shown = failures;
    }
}
