//! A key's bytes, kept inside the table when they are few: comparing a hot key then follows no
//! pointer and keeping a cold one allocates nothing.

/// Longest key that needs no allocation: fills the type up to 24 bytes. A number's key has 9.
const INLINE_MAX: usize = 22;

/// Owned bytes of a key.
#[derive(Clone)]
pub(super) enum KeyBytes {
    Inline { length: u8, bytes: [u8; INLINE_MAX] },
    Heap(Box<[u8]>),
}

impl KeyBytes {
    pub(super) fn new(key: &[u8]) -> KeyBytes {
        if key.len() <= INLINE_MAX {
            let mut bytes = [0; INLINE_MAX];
            bytes[..key.len()].copy_from_slice(key);
            KeyBytes::Inline { length: key.len() as u8, bytes }
        } else {
            KeyBytes::Heap(key.into())
        }
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            KeyBytes::Inline { length, bytes } => &bytes[..usize::from(*length)],
            KeyBytes::Heap(bytes) => bytes,
        }
    }

    /// Bytes beyond the value itself.
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            KeyBytes::Inline { .. } => 0,
            KeyBytes::Heap(bytes) => bytes.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_keys_come_back_as_they_were() {
        for length in [0, 1, INLINE_MAX, INLINE_MAX + 1, 300] {
            let key: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            assert_eq!(KeyBytes::new(&key).as_slice(), key);
        }
        assert_eq!(size_of::<KeyBytes>(), 24);
    }
}
