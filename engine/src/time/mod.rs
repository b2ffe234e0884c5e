//! Event time and processing time: watermarks that cannot go back, the minimum over active
//! inputs, and how a split's watermark is made.
//!
//! This module knows nobody in the crate. Times are microseconds since the epoch, UTC.

mod ahead;
mod duration;
mod silence;
mod strategy;
mod watermark;

pub use ahead::RowsReached;
pub use duration::{DURATION_UNITS, show_duration};
pub use silence::Silence;
pub use strategy::{AheadOf, MaxAhead, OnAhead, SplitWatermark, WatermarkGenerator, WatermarkStrategy};
pub use watermark::{InputWatermarks, RisingWatermark, Watermark};

/// A point in time in microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

/// The times that a row can have: the years 1 to 9999, as RFC 3339 writes them. What lies outside is
/// a number in another unit, or no time at all.
pub const TIME_RANGE: std::ops::RangeInclusive<Micros> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// Microseconds in a millisecond.
pub const MILLI: Micros = 1_000;
/// Microseconds in a second.
pub const SECOND: Micros = 1_000_000;
/// Microseconds in a minute.
pub const MINUTE: Micros = 60 * SECOND;
/// Microseconds in an hour.
pub const HOUR: Micros = 60 * MINUTE;
/// Microseconds in a day of 24 hours.
pub const DAY: Micros = 24 * HOUR;
