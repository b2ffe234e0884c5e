//! Counts records whose time cannot be decoded, apart from other bad ones.

use thalweg_engine::metrics::{Counter, MetricGroup};

use crate::format::{BadRecord, BadTime};

/// How many records could not be decoded for their time.
pub(crate) struct BadTimes {
    unparsable: Counter,
    out_of_range: Counter,
}

impl BadTimes {
    pub(crate) fn new(group: &MetricGroup) -> BadTimes {
        BadTimes {
            unparsable: group
                .counter("decode_errors_time_unparsable_total", "Records whose time is no time."),
            out_of_range: group.counter(
                "decode_errors_time_out_of_range_total",
                "Records whose time is beyond what a column holds.",
            ),
        }
    }

    pub(crate) fn count(&self, bad: &[BadRecord]) {
        let of = |wanted| bad.iter().filter(|record| record.time == Some(wanted)).count() as u64;
        self.unparsable.add(of(BadTime::Unparsable));
        self.out_of_range.add(of(BadTime::OutOfRange));
    }
}
