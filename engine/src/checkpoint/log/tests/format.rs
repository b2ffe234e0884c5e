//! The log's format, pinned: one entry of each kind, as version 1 wrote it.

use super::super::{LogEntry, LogEvent, Writer};
use crate::checkpoint::CheckpointId;

const FIXTURE: &str = include_str!("../../fixtures/log-1.jsonl");

fn entries() -> Vec<LogEntry> {
    let id = |number| CheckpointId { generation: 3, number };
    let events = [
        LogEvent::Claim,
        LogEvent::Publish { checkpoint: id(41) },
        LogEvent::Committed { checkpoint: id(41) },
        LogEvent::Retire { checkpoints: vec![id(39), id(40)] },
        LogEvent::Snapshot { published: vec![id(41), id(42)], committed: Some(id(41)), highest_number: 42 },
        LogEvent::Snapshot { published: vec![], committed: None, highest_number: 0 },
    ];
    let writer = Writer { generation: 3, nonce: "00112233445566778899aabbccddeeff".into() };
    events.into_iter().map(|event| LogEntry::new(writer.clone(), event)).collect()
}

#[test]
fn entries_are_written_as_version_1_did() {
    let written: Vec<_> =
        entries().iter().map(|entry| String::from_utf8(entry.encode().unwrap().to_vec()).unwrap()).collect();
    assert_eq!(written, FIXTURE.lines().collect::<Vec<_>>(), "\n{}\n", written.join("\n"));
}

#[test]
fn h5_entries_of_version_1_are_read() {
    let read: Vec<_> =
        FIXTURE.lines().map(|line| LogEntry::decode("fixture", line.as_bytes()).unwrap()).collect();
    assert_eq!(read, entries());
}
