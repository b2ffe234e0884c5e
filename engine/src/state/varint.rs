//! Unsigned LEB128: seven bits a byte, the lowest first. Part of the pinned formats of keys and
//! values, so it is ours and knows nobody.

use crate::{Error, Result};

/// Longest encoding of a `u64`.
const BYTES_MAX: usize = 10;

/// Appends `value`.
pub(crate) fn write(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a value and what follows it.
///
/// # Errors
/// An internal error when `bytes` ends early, is longer than a `u64` needs, or has a needless
/// last zero byte (the encoding is unique).
pub(crate) fn read(bytes: &[u8]) -> Result<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, &byte) in bytes.iter().take(BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if index == BYTES_MAX - 1 && bits > 1 {
            break;
        }
        value |= bits << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                break;
            }
            return Ok((value, &bytes[index + 1..]));
        }
    }
    Err(Error::internal("damaged bytes: not a variable-length integer"))
}

/// Reads a length and that many bytes, and what follows them.
///
/// # Errors
/// As [`read`], or when fewer bytes are left.
pub(crate) fn read_slice(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let (length, rest) = read(bytes)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > rest.len() {
        return Err(Error::internal(format!(
            "damaged bytes: {length} are announced, {} are there",
            rest.len()
        )));
    }
    Ok(rest.split_at(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_at_the_edges_and_refuses_what_is_cut_or_not_minimal() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            write(value, &mut bytes);
            assert_eq!(read(&bytes).unwrap(), (value, &[][..]));
            assert!(read(&bytes[..bytes.len() - 1]).is_err());
        }
        assert!(read(&[0x80, 0x00]).is_err());
        assert!(read(&[0xff; 11]).is_err());
        assert!(read_slice(&[3, 1, 2]).is_err());
    }
}
