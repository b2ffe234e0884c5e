//! What a generated column holds. A value is a pure function of (seed, column, row number), so
//! any range of rows can be made at any time, by anyone, and is always the same.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, StringViewArray, StringViewBuilder, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::datatypes::DataType;
use thalweg_engine::record::time_type;
use thalweg_engine::time::Micros;
use thalweg_engine::{Error, Result};

use super::zipf::Zipf;

/// A string's view.
const VIEW_BYTES: usize = size_of::<u128>();
/// The longest number of a key.
const KEY_DIGITS_MAX: usize = 20;

/// How often each key comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyDistribution {
    /// All equally often.
    Uniform,
    /// Key k with a frequency proportional to `1 / (k + 1)^exponent`: key 0 is the hottest.
    Zipf {
        /// 0 is uniform; 1 is Zipf's law.
        exponent: f64,
    },
}

/// What a generated column holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Generate {
    /// `UInt64`: the row's number, beginning with `start`.
    Sequence {
        /// The first row's value.
        start: u64,
    },
    /// `UInt64`: any 64 random bits.
    Random,
    /// `Int64`: uniform in `min..=max`.
    Integer {
        /// The lowest value.
        min: i64,
        /// The highest value.
        max: i64,
    },
    /// `Float64`: uniform in `min..max`.
    Float {
        /// The lowest value.
        min: f64,
        /// Just above the highest value.
        max: f64,
    },
    /// `UInt64`: a key in `0..cardinality`.
    Key {
        /// How many keys.
        cardinality: u64,
        /// How often each comes.
        distribution: KeyDistribution,
    },
    /// `Utf8View`: `prefix` and the number of a key in `0..cardinality`.
    TextKey {
        /// What stands before the number.
        prefix: String,
        /// How many keys.
        cardinality: u64,
        /// How often each comes.
        distribution: KeyDistribution,
    },
    /// `Utf8View`: random lower-case letters and digits, `min_bytes..=max_bytes` of them.
    Text {
        /// The shortest length in bytes.
        min_bytes: usize,
        /// The longest length in bytes.
        max_bytes: usize,
    },
    /// `Utf8View`: one of these, uniformly.
    OneOf(Vec<String>),
    /// Event time (`engine::record::time_type`): `start + row * step`, less a random part of
    /// `jitter`. So no row is more than `jitter` behind an earlier one.
    Time {
        /// The first row's time, without jitter. Microseconds.
        start: Micros,
        /// From a row to the next. Microseconds.
        step: Micros,
        /// The most that a row is moved back. Microseconds.
        jitter: Micros,
    },
}

impl Generate {
    /// The column's type.
    pub fn data_type(&self) -> DataType {
        match self {
            Generate::Sequence { .. } | Generate::Random | Generate::Key { .. } => DataType::UInt64,
            Generate::Integer { .. } => DataType::Int64,
            Generate::Float { .. } => DataType::Float64,
            Generate::TextKey { .. } | Generate::Text { .. } | Generate::OneOf(_) => DataType::Utf8View,
            Generate::Time { .. } => time_type(),
        }
    }

    /// What a value takes at most, in bytes.
    pub(super) fn value_bytes_max(&self) -> usize {
        let text = |bytes: usize| VIEW_BYTES + bytes;
        match self {
            Generate::TextKey { prefix, .. } => text(prefix.len() + KEY_DIGITS_MAX),
            Generate::Text { max_bytes, .. } => text(*max_bytes),
            Generate::OneOf(values) => text(values.iter().map(String::len).max().unwrap_or(0)),
            _ => size_of::<u64>(),
        }
    }

    /// Whether a column can be made.
    ///
    /// # Errors
    /// A user error that says what is wrong.
    pub(super) fn check(&self) -> Result<()> {
        let fault = match self {
            Generate::Integer { min, max } if min > max => Some("min is above max"),
            Generate::Float { min, max } if !(min.is_finite() && max.is_finite() && min < max) => {
                Some("min must be below max, and both finite")
            }
            Generate::Key { cardinality: 0, .. } | Generate::TextKey { cardinality: 0, .. } => {
                Some("cardinality must be at least 1")
            }
            Generate::Text { min_bytes, max_bytes } if min_bytes > max_bytes => {
                Some("min_bytes is above max_bytes")
            }
            Generate::OneOf(values) if values.is_empty() => Some("there is nothing to choose from"),
            Generate::Time { jitter, .. } if *jitter < 0 => Some("jitter must not be negative"),
            Generate::Key { cardinality, distribution }
            | Generate::TextKey { cardinality, distribution, .. } => Zipf::check(*cardinality, *distribution),
            _ => None,
        };
        fault.map_or(Ok(()), |fault| Err(Error::user(fault)))
    }
}

/// Keys by rank.
enum Keys {
    Uniform(u64),
    Zipf(Zipf),
}

impl Keys {
    fn new(cardinality: u64, distribution: KeyDistribution) -> Keys {
        match distribution {
            KeyDistribution::Uniform => Keys::Uniform(cardinality),
            KeyDistribution::Zipf { exponent } => Keys::Zipf(Zipf::new(cardinality, exponent)),
        }
    }

    #[inline]
    fn pick(&self, random: u64) -> u64 {
        match self {
            Keys::Uniform(cardinality) => below(random, *cardinality),
            Keys::Zipf(zipf) => zipf.pick(random),
        }
    }
}

/// A column that is ready to be filled.
pub(super) struct Maker {
    generate: Generate,
    /// Differs between columns and seeds.
    stream: u64,
    keys: Option<Keys>,
    choices: Option<StringViewArray>,
}

impl Maker {
    pub(super) fn new(generate: &Generate, seed: u64, column: usize) -> Maker {
        let keys = match generate {
            Generate::Key { cardinality, distribution }
            | Generate::TextKey { cardinality, distribution, .. } => {
                Some(Keys::new(*cardinality, *distribution))
            }
            _ => None,
        };
        let choices = match generate {
            Generate::OneOf(values) => Some(StringViewArray::from_iter_values(values)),
            _ => None,
        };
        let stream = mix(seed ^ mix(column as u64 + 1));
        Maker { generate: generate.clone(), stream, keys, choices }
    }

    /// The values of rows `first..first + rows`.
    pub(super) fn make(&self, first: u64, rows: usize) -> ArrayRef {
        let stream = self.stream;
        let numbers = first..first + rows as u64;
        let randoms = numbers.clone().map(move |row| random(stream, row));
        match &self.generate {
            Generate::Sequence { start } => {
                let start = *start;
                let values = numbers.map(move |row| start.wrapping_add(row));
                Arc::new(UInt64Array::from_iter_values(values))
            }
            Generate::Random => Arc::new(UInt64Array::from_iter_values(randoms)),
            Generate::Integer { min, max } => {
                let (min, span) = (*min, max.wrapping_sub(*min) as u64);
                // A span of all 64 bits has no width that fits.
                let width = span.checked_add(1);
                let offset = move |r| width.map_or(r, |width| below(r, width));
                Arc::new(Int64Array::from_iter_values(randoms.map(|r| min.wrapping_add(offset(r) as i64))))
            }
            Generate::Float { min, max } => {
                let (min, width) = (*min, max - min);
                Arc::new(Float64Array::from_iter_values(randoms.map(|r| min + unit(r) * width)))
            }
            Generate::Key { .. } => Arc::new(self.keys(randoms)),
            Generate::TextKey { prefix, .. } => {
                let mut builder = StringViewBuilder::with_capacity(rows);
                let mut text = prefix.clone();
                for key in self.keys(randoms).values() {
                    use std::fmt::Write;
                    text.truncate(prefix.len());
                    // Writing to a string cannot fail.
                    let _ = write!(text, "{key}");
                    builder.append_value(&text);
                }
                Arc::new(builder.finish())
            }
            Generate::Text { min_bytes, max_bytes } => Arc::new(texts(randoms, *min_bytes, *max_bytes, rows)),
            Generate::OneOf(_) => self.chosen(randoms),
            Generate::Time { start, step, jitter } => {
                let (start, step, width) = (*start, *step, *jitter as u64 + 1);
                let times = numbers.zip(randoms).map(move |(row, r)| {
                    start.wrapping_add((row as i64).wrapping_mul(step)).wrapping_sub(below(r, width) as i64)
                });
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_data_type(time_type()))
            }
        }
    }

    fn keys(&self, randoms: impl Iterator<Item = u64>) -> UInt64Array {
        match &self.keys {
            Some(Keys::Uniform(cardinality)) => {
                let cardinality = *cardinality;
                UInt64Array::from_iter_values(randoms.map(move |r| below(r, cardinality)))
            }
            Some(keys) => UInt64Array::from_iter_values(randoms.map(|r| keys.pick(r))),
            None => UInt64Array::from_iter_values(randoms),
        }
    }

    fn chosen(&self, randoms: impl Iterator<Item = u64>) -> ArrayRef {
        let Some(choices) = &self.choices else {
            return Arc::new(StringViewArray::from_iter_values(randoms.map(|_| "")));
        };
        let count = arrow::array::Array::len(choices) as u64;
        let chosen = randoms.map(|r| choices.value(below(r, count) as usize));
        Arc::new(StringViewArray::from_iter_values(chosen))
    }
}

fn texts(randoms: impl Iterator<Item = u64>, min: usize, max: usize, rows: usize) -> StringViewArray {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut builder = StringViewBuilder::with_capacity(rows);
    let mut text = String::with_capacity(max);
    for r in randoms {
        text.clear();
        let length = min + below(r, (max - min) as u64 + 1) as usize;
        let mut block = 0;
        while text.len() < length {
            let mut bits = random(r, block);
            block += 1;
            // Twelve letters of five bits each.
            for _ in 0..(length - text.len()).min(12) {
                text.push(char::from(LETTERS[(bits & 31) as usize]));
                bits >>= 5;
            }
        }
        builder.append_value(&text);
    }
    builder.finish()
}

/// The random bits of a row: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), jumped to `row`.
#[inline]
pub(super) fn random(stream: u64, row: u64) -> u64 {
    mix(stream.wrapping_add(row.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `random` brought into `0..limit` by multiplication (Lemire): no division.
#[inline]
pub(super) fn below(random: u64, limit: u64) -> u64 {
    ((u128::from(random) * u128::from(limit)) >> 64) as u64
}

/// `random` as a float in `0..1`: its upper 53 bits.
#[inline]
pub(super) fn unit(random: u64) -> f64 {
    (random >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}
