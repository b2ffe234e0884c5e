//! Windows on keyed streams: `keyed.window(TumblingWindow::hours(1)).aggregate([..])`.

use thalweg_engine::graph::{KeyedStream, Stream};
use thalweg_engine::time::{HOUR, MINUTE, Micros, SECOND};

use super::Tumbling;
use crate::aggregate::AggregateSpec;

/// Which windows rows fall into: each row into exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TumblingWindow {
    size: Micros,
    offset: Micros,
}

impl TumblingWindow {
    /// Windows of `size` microseconds, aligned to 1970-01-01T00:00:00Z.
    pub fn of(size: Micros) -> Self {
        TumblingWindow { size, offset: 0 }
    }

    /// Windows of so many seconds.
    pub fn seconds(count: i64) -> Self {
        Self::of(count * SECOND)
    }

    /// Windows of so many minutes.
    pub fn minutes(count: i64) -> Self {
        Self::of(count * MINUTE)
    }

    /// Windows of so many hours.
    pub fn hours(count: i64) -> Self {
        Self::of(count * HOUR)
    }

    /// Moves all windows by `offset` microseconds.
    #[must_use]
    pub fn offset(mut self, offset: Micros) -> Self {
        self.offset = offset;
        self
    }
}

/// Windows over keyed streams: those of batches, and typed ones.
pub trait WindowExt {
    /// Puts each key's rows into windows.
    fn window(&self, window: TumblingWindow) -> WindowedStream;
}

impl<K: AsRef<KeyedStream>> WindowExt for K {
    fn window(&self, window: TumblingWindow) -> WindowedStream {
        WindowedStream { keyed: self.as_ref().clone(), window, lateness: 0 }
    }
}

/// A keyed stream whose rows are in windows, to be aggregated.
#[must_use]
pub struct WindowedStream {
    keyed: KeyedStream,
    window: TumblingWindow,
    lateness: Micros,
}

impl WindowedStream {
    /// Keeps windows for `lateness` microseconds after they fired, for rows that come late.
    pub fn allowed_lateness(mut self, lateness: Micros) -> Self {
        self.lateness = lateness;
        self
    }

    /// One row per key and window. Rows that come too late, or have no event time, are in the
    /// side output 1.
    pub fn aggregate(self, aggregates: impl IntoIterator<Item = AggregateSpec>) -> Stream {
        let operator = Tumbling::new(self.keyed.key(), self.window.size, aggregates)
            .offset(self.window.offset)
            .allowed_lateness(self.lateness);
        self.keyed.apply(operator)
    }
}
