//! One entry of the log, and its format.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::checkpoint::CheckpointId;
use crate::{Error, Result};

/// The newest format of an entry that this code writes and reads.
pub const LOG_FORMAT: u32 = 1;

/// Who wrote an entry: one run of a coordinator. The nonce tells a writer's own entry, whose
/// acknowledgement was lost, from everybody else's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Writer {
    /// The generation that it claimed.
    pub generation: u64,
    /// Unique among all writers of all time.
    pub nonce: String,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LogEvent {
    /// The writer is the coordinator from here on.
    Claim,
    /// A checkpoint's manifest is written, and it is what a restore takes.
    Publish {
        /// Which.
        checkpoint: CheckpointId,
    },
    /// Every committable of this checkpoint, and of those published before it, is committed.
    Committed {
        /// Which.
        checkpoint: CheckpointId,
    },
    /// Nobody will restore these any more; from here on their files may be deleted.
    Retire {
        /// Which.
        checkpoints: Vec<CheckpointId>,
    },
    /// All that the entries before this one said; they may be deleted.
    Snapshot {
        /// Published and not retired, in the order of publication.
        published: Vec<CheckpointId>,
        /// The last published one whose commits are known to be done.
        committed: Option<CheckpointId>,
        /// The highest number that was ever published.
        highest_number: u64,
    },
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    format: u32,
    /// Who.
    pub writer: Writer,
    /// What.
    pub event: LogEvent,
}

impl LogEntry {
    /// An entry in the format of today.
    pub fn new(writer: Writer, event: LogEvent) -> LogEntry {
        LogEntry { format: LOG_FORMAT, writer, event }
    }

    /// The entry as it stands in the store.
    ///
    /// # Errors
    /// An internal error; none that should come.
    pub fn encode(&self) -> Result<Bytes> {
        serde_json::to_vec(self)
            .map(Bytes::from)
            .map_err(|error| Error::internal("cannot encode a log entry").caused_by(error))
    }

    /// Reads an entry; `path` is where it came from.
    ///
    /// # Errors
    /// A permanent external error that names the path, when the entry is damaged or was written
    /// by a newer version.
    pub fn decode(path: &str, data: &[u8]) -> Result<LogEntry> {
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let damaged =
            |error| Error::external(format!("log entry {path} is damaged")).caused_by(error).permanent();
        // The number comes first: an entry of a newer format need not parse as one of ours.
        let Versioned { format } = serde_json::from_slice(data).map_err(damaged)?;
        if format > LOG_FORMAT {
            let why = format!("log entry {path} has format {format}; this version reads up to {LOG_FORMAT}");
            return Err(Error::external(why).permanent());
        }
        serde_json::from_slice(data).map_err(damaged)
    }
}
