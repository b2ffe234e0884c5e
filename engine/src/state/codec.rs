//! How a state's value becomes bytes: its version as a varint, then serde through bincode.
//!
//! The wire format is pinned by golden vectors, because bincode is no longer maintained and may
//! have to be replaced by code that reads the same bytes. Nobody else in the crate calls bincode
//! for state.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::varint;
use crate::{Error, Result};

/// The only version there is of values whose type has not said another one.
const VERSION: u64 = 1;

/// Encodes and decodes the values of states.
///
/// Layout: `version (LEB128) | bincode 2, standard configuration` (little endian, variable-length
/// integers, lengths before sequences).
#[derive(Clone, Copy, Debug, Default)]
pub struct Codec;

impl Codec {
    /// Appends the encoding of `value`.
    ///
    /// # Errors
    /// A user error when the type's `Serialize` fails.
    pub fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<()> {
        varint::write(VERSION, out);
        bincode::serde::encode_into_std_write(value, out, bincode::config::standard())
            .map_err(|error| Error::user("cannot encode a state's value").caused_by(error))?;
        Ok(())
    }

    /// The encoding of `value`.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    pub fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(16);
        Self::encode(value, &mut out)?;
        Ok(out)
    }

    /// The value of an encoding.
    ///
    /// # Errors
    /// A user error when the version is unknown or the bytes are not those of a `T`.
    pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
        let (version, rest) = varint::read(bytes)?;
        if version != VERSION {
            return Err(Error::user(format!(
                "a state's value has version {version}; this program reads version {VERSION}"
            )));
        }
        let name = std::any::type_name::<T>();
        let (value, length) = bincode::serde::decode_from_slice(rest, bincode::config::standard())
            .map_err(|error| Error::user(format!("a state's value is not a {name}")).caused_by(error))?;
        if length != rest.len() {
            return Err(Error::user(format!(
                "a state's value is not a {name}: {} of its {} bytes are left over",
                rest.len() - length,
                rest.len()
            )));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        count: u64,
        delay: Option<i32>,
        name: String,
        tags: Vec<u16>,
        by_hour: BTreeMap<u8, f64>,
        kind: Kind,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Empty,
        Pair(bool, char),
        Named { at: i64 },
    }

    fn hex<T: Serialize>(value: &T) -> String {
        Codec::to_vec(value).unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_vectors_pin_the_wire_format() {
        assert_eq!(hex(&0u64), "0100");
        assert_eq!(hex(&250u64), "01fa");
        assert_eq!(hex(&251u64), "01fbfb00");
        assert_eq!(hex(&70_000u32), "01fc70110100");
        assert_eq!(hex(&u64::MAX), "01fdffffffffffffffff");
        assert_eq!(hex(&-1i64), "0101");
        assert_eq!(hex(&64i32), "0180");
        assert_eq!(hex(&200u8), "01c8");
        assert_eq!(hex(&1.5f64), "01000000000000f83f");
        assert_eq!(hex(&"né"), "01036ec3a9");
        assert_eq!(hex(&Some(3u8)), "010103");
        assert_eq!(hex(&None::<u8>), "0100");
        assert_eq!(hex(&vec![1u8, 2]), "01020102");
        assert_eq!(hex(&(1u8, true)), "010101");
        let sample = Sample {
            count: 300,
            delay: Some(-7),
            name: "UA".into(),
            tags: vec![1, 1000],
            by_hour: BTreeMap::from([(5, -0.5)]),
            kind: Kind::Pair(true, 'x'),
        };
        assert_eq!(hex(&sample), "01fb2c01010d0255410201fbe8030105000000000000e0bf010178");
        assert_eq!(Codec::decode::<Sample>(&Codec::to_vec(&sample).unwrap()).unwrap(), sample);
        assert_eq!(hex(&Kind::Empty), "0100");
        assert_eq!(hex(&Kind::Named { at: 1 }), "010202");
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Empty),
            any::<(bool, char)>().prop_map(|(yes, letter)| Kind::Pair(yes, letter)),
            any::<i64>().prop_map(|at| Kind::Named { at }),
        ]
    }

    fn sample() -> impl Strategy<Value = Sample> {
        let tags = proptest::collection::vec(any::<u16>(), 0..6);
        let by_hour = proptest::collection::btree_map(any::<u8>(), -1e9..1e9, 0..4);
        let parts = (any::<u64>(), any::<Option<i32>>(), ".{0,12}", tags, by_hour, kind());
        parts.prop_map(|(count, delay, name, tags, by_hour, kind)| Sample {
            count,
            delay,
            name,
            tags,
            by_hour,
            kind,
        })
    }

    proptest! {
        #[test]
        fn a_value_comes_back_and_no_part_or_extension_of_it_passes_for_one(
            sample in sample(), more in any::<u8>(),
        ) {
            let mut bytes = Codec::to_vec(&sample).unwrap();
            prop_assert_eq!(&Codec::decode::<Sample>(&bytes).unwrap(), &sample);
            for length in 0..bytes.len() {
                prop_assert!(Codec::decode::<Sample>(&bytes[..length]).is_err(), "{} bytes", length);
            }
            bytes.push(more);
            prop_assert!(Codec::decode::<Sample>(&bytes).is_err());
        }
    }

    #[test]
    fn an_unknown_version_and_foreign_bytes_are_refused_by_name() {
        let error = Codec::decode::<u64>(&[9, 0]).unwrap_err().to_string();
        assert!(error.contains("version 9"), "{error}");
        let error = Codec::decode::<String>(&[1, 5, b'a']).unwrap_err().to_string();
        assert!(error.contains("String"), "{error}");
        assert!(Codec::decode::<u8>(&[1, 5, 6]).unwrap_err().to_string().contains("left over"));
        assert!(Codec::decode::<u8>(&[]).is_err());
    }
}
