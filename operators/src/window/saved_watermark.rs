//! How a window operator carries time over a restore.

use thalweg_engine::time::{Micros, Watermark};
use thalweg_engine::{Error, Result};

/// What an instance saves of time.
pub(super) struct SavedWatermark {
    pub(super) watermark: Micros,
    /// How far time had come: the watermark before the end of data, or the last window that fired.
    pub(super) reached: Micros,
}

impl SavedWatermark {
    /// The watermark; at the end of data, where it says nothing, how far time had come too.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.watermark.to_le_bytes().to_vec();
        if self.watermark == Micros::MAX {
            bytes.extend(self.reached.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<SavedWatermark> {
        let unreadable = || Error::internal("a saved watermark does not decode");
        let (watermark, rest) = bytes.split_first_chunk::<8>().ok_or_else(unreadable)?;
        let watermark = Micros::from_le_bytes(*watermark);
        if rest.is_empty() {
            return Ok(SavedWatermark { watermark, reached: watermark });
        }
        let reached = Micros::from_le_bytes(rest.try_into().map_err(|_| unreadable())?);
        Ok(SavedWatermark { watermark, reached })
    }
}

/// The lowest of the watermarks that the instances saved: none of them had dropped a row that was
/// above it. Where all were at the end of data, the job may have been given more to read since: what
/// was closed then stays closed, and what lies behind it is not late.
pub(super) fn restored_watermark<'a>(items: impl Iterator<Item = &'a [u8]>) -> Result<Watermark> {
    let saved: Vec<SavedWatermark> = items.map(SavedWatermark::from_bytes).collect::<Result<_>>()?;
    let lowest = saved.iter().map(|saved| saved.watermark).min();
    let restored = match lowest {
        Some(Micros::MAX) => saved.iter().map(|saved| saved.reached).max(),
        lowest => lowest,
    };
    Ok(restored.map_or(Watermark::MIN, Watermark))
}
