//! The keys of map states: types whose encoding sorts as they do, so that a map is read from the
//! store in its keys' order.
//!
//! The encodings are part of a snapshot and pinned by golden vectors: integers are big endian
//! with the sign flipped; strings and bytes end in `00 01` and hold a zero as `00 ff`; a tuple is
//! its parts one after the other; `None` is `00`, `Some` is `01` and the value.

use super::state_size::StateSize;
use crate::{Error, Result};

/// A type that can be the key of a map state.
///
/// The rule: `a.cmp(&b)` equals the comparison of their encodings, byte by byte, and no encoding
/// is a prefix of another one.
pub trait MapKey: Ord + Clone + Send + Sync + StateSize + 'static {
    /// Appends the encoding.
    fn encode_key(&self, out: &mut Vec<u8>);

    /// Takes a key off the front of `bytes`.
    ///
    /// # Errors
    /// An internal error when the bytes are not those of such a key.
    fn decode_key(bytes: &mut &[u8]) -> Result<Self>;
}

fn damaged() -> Error {
    Error::internal("damaged bytes: not the key of this map state")
}

/// A whole encoding's key.
pub(super) fn decode_whole<K: MapKey>(mut bytes: &[u8]) -> Result<K> {
    let key = K::decode_key(&mut bytes)?;
    if bytes.is_empty() { Ok(key) } else { Err(damaged()) }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or_else(damaged)?;
    *bytes = rest;
    Ok(taken)
}

macro_rules! integers {
    ($($name:ty, $bits:ty, $flip:expr;)*) => { $(
        impl MapKey for $name {
            fn encode_key(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&((*self as $bits) ^ $flip).to_be_bytes());
            }

            fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
                let (taken, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
                *bytes = rest;
                Ok((<$bits>::from_be_bytes(*taken) ^ $flip) as $name)
            }
        }
    )* };
}
integers! {
    u8, u8, 0;
    u16, u16, 0;
    u32, u32, 0;
    u64, u64, 0;
    u128, u128, 0;
    i8, u8, 1 << 7;
    i16, u16, 1 << 15;
    i32, u32, 1 << 31;
    i64, u64, 1 << 63;
    i128, u128, 1 << 127;
}

impl MapKey for bool {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
        Ok(take(bytes, 1)?[0] != 0)
    }
}

impl MapKey for () {
    fn encode_key(&self, _out: &mut Vec<u8>) {}

    fn decode_key(_bytes: &mut &[u8]) -> Result<Self> {
        Ok(())
    }
}

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xff;
const END: u8 = 0x01;

fn encode_bytes(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value {
        out.push(byte);
        if byte == ESCAPE {
            out.push(ESCAPED_ZERO);
        }
    }
    out.extend_from_slice(&[ESCAPE, END]);
}

fn decode_bytes(bytes: &mut &[u8]) -> Result<Vec<u8>> {
    let mut value = Vec::new();
    loop {
        match take(bytes, 1)?[0] {
            ESCAPE => match take(bytes, 1)?[0] {
                ESCAPED_ZERO => value.push(ESCAPE),
                END => return Ok(value),
                _ => return Err(damaged()),
            },
            byte => value.push(byte),
        }
    }
}

impl MapKey for String {
    fn encode_key(&self, out: &mut Vec<u8>) {
        encode_bytes(self.as_bytes(), out);
    }

    fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
        String::from_utf8(decode_bytes(bytes)?).map_err(|_| damaged())
    }
}

impl MapKey for Vec<u8> {
    fn encode_key(&self, out: &mut Vec<u8>) {
        encode_bytes(self, out);
    }

    fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
        decode_bytes(bytes)
    }
}

impl<T: MapKey> MapKey for Option<T> {
    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode_key(out);
        }
    }

    fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
        match take(bytes, 1)?[0] {
            0 => Ok(None),
            _ => Ok(Some(T::decode_key(bytes)?)),
        }
    }
}

macro_rules! tuples {
    ($($($name:ident)+;)*) => { $(
        impl<$($name: MapKey),+> MapKey for ($($name,)+) {
            #[allow(non_snake_case)]
            fn encode_key(&self, out: &mut Vec<u8>) {
                let ($($name,)+) = self;
                $($name.encode_key(out);)+
            }

            fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
                Ok(($($name::decode_key(bytes)?,)+))
            }
        }
    )* };
}
tuples! { A; A B; A B C; A B C D; }

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded<K: MapKey>(key: &K) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode_key(&mut out);
        out
    }

    #[test]
    fn golden_vectors_pin_the_encoding() {
        assert_eq!(encoded(&-2i32), [0x7f, 0xff, 0xff, 0xfe]);
        assert_eq!(encoded(&7u16), [0, 7]);
        assert_eq!(encoded(&("a\0".to_string(), Some(true))), [b'a', 0, 0xff, 0, 1, 1, 1]);
        assert_eq!(encoded(&None::<u8>), [0]);
    }

    proptest! {
        #[test]
        fn order_and_value_survive(
            a: (i64, String, Option<Vec<u8>>, bool),
            b: (i64, String, Option<Vec<u8>>, bool),
            near in "[a\u{0}\u{1}]{0,3}", next in "[a\u{0}\u{1}]{0,3}",
        ) {
            prop_assert_eq!(encoded(&a).cmp(&encoded(&b)), a.cmp(&b));
            prop_assert_eq!(decode_whole::<(i64, String, Option<Vec<u8>>, bool)>(&encoded(&a)).unwrap(), a);
            let (near, next) = ((near, 1u8), (next, 0u8));
            prop_assert_eq!(encoded(&near).cmp(&encoded(&next)), near.cmp(&next));
        }
    }
}
