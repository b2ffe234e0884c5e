//! How a split's watermark is made from the event times that it delivers.

use serde::{Deserialize, Serialize};

use super::{Micros, RisingWatermark, Watermark};

/// Bounded out-of-orderness with idleness, as Flink's `forBoundedOutOfOrderness(..).withIdleness(..)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkStrategy {
    /// A row may come this much after a row with a later event time. Microseconds.
    pub out_of_order: Micros,
    /// A split that was asked for rows, and had none for this long, is idle and holds nobody back.
    /// What is merely slow is not: see [`Silence`](super::Silence). Microseconds of processing
    /// time; `None`: a split is never idle by itself.
    pub idle_after: Option<Micros>,
}

impl WatermarkStrategy {
    /// Rows may be out of order by `bound` microseconds.
    pub fn bounded_out_of_order(bound: Micros) -> Self {
        WatermarkStrategy { out_of_order: bound, idle_after: None }
    }

    /// Makes splits idle after `after` microseconds of being asked without having rows.
    #[must_use]
    pub fn idle_after(mut self, after: Micros) -> Self {
        self.idle_after = Some(after);
        self
    }
}

/// The watermark of one split.
#[derive(Clone, Copy, Debug, Default)]
pub struct SplitWatermark(RisingWatermark);

impl SplitWatermark {
    /// Takes in the highest event time of some rows. A row whose time equals the maximum minus
    /// the bound is still on time, so the watermark is one microsecond below it.
    pub fn observe(&mut self, strategy: &WatermarkStrategy, time_max: Micros) {
        self.0.rise(Watermark(time_max.saturating_sub(strategy.out_of_order).saturating_sub(1)));
    }

    /// The split's watermark.
    pub fn current(&self) -> Watermark {
        self.0.current()
    }
}
