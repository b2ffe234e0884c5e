//! The log as fence (H2): a job's dense sequence of entries, each made by put-if-absent.
//!
//! The rules:
//! - A coordinator writes only the slot after the last entry that it has read. If the slot is
//!   taken by another writer it stops for good; so after a claim its predecessor, paused or not,
//!   publishes and commits nothing.
//! - A put that failed may have succeeded, now or later: the slot is read back, and entries carry
//!   their writer's nonce. An entry given up on is settled by the next one, which wants its slot.
//! - Entries before a snapshot may be deleted. A slot can then be free although the log has gone
//!   past it; so an entry counts only after a listing showed none behind it, and readers begin at
//!   the newest snapshot.
//! - Files of a checkpoint are deleted only after an entry has retired it, so a successor never
//!   restores what a paused predecessor is about to delete.

mod decide;
mod entry;
mod job_log;
mod nonce;
mod reader;
#[cfg(test)]
mod tests;
mod view;

pub use entry::{LOG_FORMAT, LogEntry, LogEvent, Writer};
pub use job_log::JobLog;
pub use nonce::fresh_nonce;
pub use reader::read_log;
pub use view::LogView;
