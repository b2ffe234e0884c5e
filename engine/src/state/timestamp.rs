//! Points in time in states: as values, and as keys of map states, where they sort by time.

use super::map_key::MapKey;
use super::state_size::StateSize;
use crate::Result;
use crate::record::Timestamp;

impl StateSize for Timestamp {}

impl MapKey for Timestamp {
    fn encode_key(&self, out: &mut Vec<u8>) {
        self.micros().encode_key(out);
    }

    fn decode_key(bytes: &mut &[u8]) -> Result<Self> {
        i64::decode_key(bytes).map(Timestamp)
    }
}
