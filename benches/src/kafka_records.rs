//! The records of the Kafka benchmarks: bids as JSON, each of exactly 263 bytes, a pure function of
//! their number. Four columns are read; the others are there to be skipped.

use std::fmt::Write;

use arrow::datatypes::{DataType, Field, Schema};
use thalweg_engine::record::time_type;

/// Bytes of a record.
pub const RECORD_BYTES: usize = 263;
/// Distinct bidders.
pub const BIDDERS: u64 = 10_000;
/// Records of one millisecond of event time.
const PER_MILLISECOND: u64 = 10;
/// Event time of the first record; milliseconds.
const BEGIN: u64 = 1_700_000_000_000;

/// The columns that are read.
pub fn schema() -> Schema {
    Schema::new(vec![
        Field::new("auction", DataType::Int64, false),
        Field::new("bidder", DataType::Int64, false),
        Field::new("price", DataType::Int64, false),
        Field::new("time", time_type(), false),
    ])
}

/// Writes record `number` into `out`, in place of what it holds.
pub fn write_record(number: u64, out: &mut String) {
    let random = mix(number);
    let (auction, bidder) = (1_000 + random % 50_000, 1_000 + (random >> 20) % BIDDERS);
    let (price, time) = (100 + (random >> 40) % 1_000_000, BEGIN + number / PER_MILLISECOND);
    out.clear();
    // A `String` takes everything.
    let _ = write!(
        out,
        "{{\"auction\":{auction},\"bidder\":{bidder},\"price\":{price},\"channel\":\"channel-{}\",\
         \"url\":\"https://www.nexmark.com/item.htm?query=1&channel_id={}\",\"time\":{time},\"extra\":\"",
        random % 100,
        random % 1_000_000_007
    );
    while out.len() < RECORD_BYTES - 2 {
        out.push(char::from(b'a' + (mix(number + out.len() as u64) % 26) as u8));
    }
    out.push_str("\"}");
}

/// SplitMix64's finaliser.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_has_the_same_length_and_is_json() {
        let mut record = String::new();
        for number in [0, 1, 999_999, 123_456_789] {
            write_record(number, &mut record);
            assert_eq!(record.len(), RECORD_BYTES);
            let value: serde_json::Value = serde_json::from_str(&record).unwrap();
            assert!(schema().fields().iter().all(|field| value[field.name()].is_u64()));
        }
    }
}
