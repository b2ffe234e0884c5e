//! How a timer is written: `key group (u16 BE) | clock (u8) | time (i64, BE, sign flipped) |
//! key length (LEB128) | key | namespace`, and how timers are ordered in memory: by time, then key
//! group, then key and namespace.

use super::key_encoding::hash_key;
use super::key_group::KeyGroup;
use super::varint;
use crate::time::Micros;
use crate::{Error, Result};

/// Which clock a timer waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Clock {
    Event = 0,
    Processing = 1,
}

const SIGN_BIT: u64 = 1 << 63;
const TIME_BYTES: usize = 8;

fn time_bytes(time: Micros) -> [u8; TIME_BYTES] {
    (time as u64 ^ SIGN_BIT).to_be_bytes()
}

/// A timer that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The time that it was registered for, in microseconds.
    pub time: Micros,
    /// Whose timer: the hash of the key.
    pub hash: u64,
    /// Whose timer: the encoded key.
    pub key: Vec<u8>,
    /// What it was registered with, such as a window.
    pub namespace: Vec<u8>,
}

/// A timer's place in the order of its clock: `time | key group | key | namespace`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position(Box<[u8]>);

impl Position {
    pub(super) fn new(time: Micros, group: KeyGroup, key: &[u8], namespace: &[u8]) -> Position {
        let mut bytes = Vec::with_capacity(TIME_BYTES + 2 + 5 + key.len() + namespace.len());
        bytes.extend_from_slice(&time_bytes(time));
        bytes.extend_from_slice(&group.0.to_be_bytes());
        varint::write(key.len() as u64, &mut bytes);
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(namespace);
        Position(bytes.into())
    }

    /// From a key of the store.
    ///
    /// # Errors
    /// An internal error when the key is cut short.
    pub(super) fn of_stored(stored: &[u8]) -> Result<Position> {
        let damaged = || Error::internal("damaged bytes: not a timer");
        let (group, rest) = stored.split_first_chunk::<2>().ok_or_else(damaged)?;
        let (_, rest) = rest.split_first().ok_or_else(damaged)?;
        let (time, rest) = rest.split_first_chunk::<TIME_BYTES>().ok_or_else(damaged)?;
        varint::read_slice(rest)?;
        let mut bytes = Vec::with_capacity(TIME_BYTES + 2 + rest.len());
        bytes.extend_from_slice(time);
        bytes.extend_from_slice(group);
        bytes.extend_from_slice(rest);
        Ok(Position(bytes.into()))
    }

    /// The key in the store.
    pub(super) fn stored(&self, clock: Clock) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() + 1);
        bytes.extend_from_slice(&self.0[TIME_BYTES..TIME_BYTES + 2]);
        bytes.push(clock as u8);
        bytes.extend_from_slice(&self.0[..TIME_BYTES]);
        bytes.extend_from_slice(&self.0[TIME_BYTES + 2..]);
        bytes
    }

    pub(super) fn time(&self) -> Micros {
        let bits = self.0.first_chunk().map_or(0, |time| u64::from_be_bytes(*time));
        (bits ^ SIGN_BIT) as Micros
    }

    pub(super) fn group(&self) -> KeyGroup {
        KeyGroup(u16::from_be_bytes([self.0[TIME_BYTES], self.0[TIME_BYTES + 1]]))
    }

    /// Memory held, what an ordered set costs included.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() + 40
    }

    /// # Errors
    /// An internal error when the position is damaged.
    pub(super) fn timer(&self) -> Result<Timer> {
        let (key, namespace) = varint::read_slice(&self.0[TIME_BYTES + 2..])?;
        Ok(Timer { time: self.time(), hash: hash_key(key), key: key.to_vec(), namespace: namespace.to_vec() })
    }
}

/// One past a key group's timers of one clock in the store.
pub(super) fn group_end(group: KeyGroup, clock: Clock) -> Vec<u8> {
    let mut end = group.0.to_be_bytes().to_vec();
    end.push(clock as u8 + 1);
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_vector_pins_the_stored_form() {
        let position = Position::new(-1, KeyGroup(0x0102), b"key", b"ns");
        let stored = position.stored(Clock::Processing);
        assert_eq!(
            stored,
            [1, 2, 1, 0x7f, 255, 255, 255, 255, 255, 255, 255, 3, b'k', b'e', b'y', b'n', b's']
        );
        assert_eq!(Position::of_stored(&stored).unwrap(), position);
        assert!((0..12).all(|length| Position::of_stored(&stored[..length]).is_err()));
    }

    proptest! {
        #[test]
        fn positions_order_by_time_then_group_and_come_back(
            a: (i64, u16, Vec<u8>, Vec<u8>), b: (i64, u16, Vec<u8>, Vec<u8>)
        ) {
            let position = |t: &(i64, u16, Vec<u8>, Vec<u8>)| {
                Position::new(t.0, KeyGroup(t.1 & 0x7fff), &t.2, &t.3)
            };
            let (first, second) = (position(&a), position(&b));
            if (a.0, a.1 & 0x7fff) != (b.0, b.1 & 0x7fff) {
                prop_assert_eq!(first.cmp(&second), (a.0, a.1 & 0x7fff).cmp(&(b.0, b.1 & 0x7fff)));
            }
            let timer = first.timer().unwrap();
            prop_assert_eq!((timer.time, timer.key, timer.namespace), (a.0, a.2.clone(), a.3.clone()));
            let lowest = Position::new(a.0, first.group(), &[], &[]).stored(Clock::Event);
            let stored = first.stored(Clock::Event);
            prop_assert!(lowest <= stored && stored < group_end(first.group(), Clock::Event));
        }
    }
}
