//! A segment: the records of an epoch, staged. As a file, and as what a committable says of it.
//!
//! A file is [`MAGIC`], then each record as its length (32 bits, little endian) and the Protobuf
//! message `thalweg.prism.v1.Record` without its id. Ids are not in it: the record at index `i` is
//! `(producer, epoch, first_sequence + i)`, so they are the same however often it is published.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use prost::Message;
use serde::{Deserialize, Serialize};
use thalweg_engine::checkpoint::FileHandle;
use thalweg_engine::{Error, Result};
use thalweg_proto::prism::{Record, RecordId};

/// The file's first bytes; the last one is the format's version.
pub(super) const MAGIC: &[u8; 8] = b"thlwseg\x01";
/// Longest record that a file is believed to hold, in bytes.
const RECORD_BYTES_MAX: u32 = 256 << 20;

/// What a committable says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentReference {
    /// The logical topic.
    pub(super) topic: String,
    /// Where the segment is, its length and hash.
    pub(super) file: FileHandle,
    /// Whose records they are.
    pub(super) producer: String,
    /// Their epoch.
    pub(super) epoch: u64,
    /// The first one's sequence.
    pub(super) first_sequence: u64,
    /// How many.
    pub(super) records: u64,
}

/// Appends a record, as a file has it.
pub(super) fn encode(record: &Record, out: &mut Vec<u8>) -> Result<()> {
    let length = u32::try_from(record.encoded_len()).ok().filter(|&length| length <= RECORD_BYTES_MAX);
    let length = length.ok_or_else(|| Error::user("a record is too large to be staged"))?;
    out.extend_from_slice(&length.to_le_bytes());
    record.encode(out).map_err(|error| Error::internal("cannot stage a record").caused_by(error))
}

/// Reads a segment's file, record by record, and gives each its id.
pub(super) struct SegmentReader<'a> {
    file: BufReader<File>,
    reference: &'a SegmentReference,
    next: u64,
}

impl<'a> SegmentReader<'a> {
    /// Opens a file whose hash was verified.
    ///
    /// # Errors
    /// An external error when it cannot be read; a permanent one when it is no segment.
    pub(super) fn open(path: &Path, reference: &'a SegmentReference) -> Result<Self> {
        let unreadable = |error| {
            Error::external(format!("cannot read the segment {}", reference.file.path)).caused_by(error)
        };
        let mut file = BufReader::with_capacity(256 << 10, File::open(path).map_err(unreadable)?);
        let mut magic = [0; 8];
        file.read_exact(&mut magic).map_err(unreadable)?;
        if &magic != MAGIC {
            let what = format!("{} is no segment that this build can read", reference.file.path);
            return Err(Error::external(what).permanent());
        }
        Ok(SegmentReader { file, reference, next: 0 })
    }

    /// The next record; `None` after the last.
    ///
    /// # Errors
    /// An external error when the file ends too early or holds something else.
    pub(super) fn next_record(&mut self) -> Result<Option<Record>> {
        if self.next == self.reference.records {
            return Ok(None);
        }
        let damaged = |what: &str| {
            let path = &self.reference.file.path;
            Error::external(format!("segment {path}, record {}: {what}", self.next)).permanent()
        };
        let mut length = [0; 4];
        self.file.read_exact(&mut length).map_err(|error| damaged("is missing").caused_by(error))?;
        let length = u32::from_le_bytes(length);
        if length > RECORD_BYTES_MAX {
            return Err(damaged("has an impossible length"));
        }
        // Not a buffer of the claimed length: the claim may be wrong.
        let mut bytes = Vec::new();
        let read = self.file.by_ref().take(u64::from(length)).read_to_end(&mut bytes);
        if read.map_err(|error| damaged("cannot be read").caused_by(error))? < length as usize {
            return Err(damaged("is cut off"));
        }
        let record = Record::decode(bytes::Bytes::from(bytes));
        let mut record = record.map_err(|error| damaged("cannot be read").caused_by(error))?;
        record.id = Some(RecordId {
            producer: self.reference.producer.clone(),
            epoch: self.reference.epoch,
            sequence: self.reference.first_sequence + self.next,
        });
        self.next += 1;
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::super::staging::{OpenSegment, SealedSegment, StagedBytes};
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use thalweg_engine::checkpoint::fetch;
    use thalweg_engine::checkpoint::{Cancellation, MemoryStorage};
    use thalweg_engine::metrics::Gauge;
    use thalweg_engine::operator::Waker;

    fn staged_bytes() -> Arc<StagedBytes> {
        StagedBytes::new(Gauge::default(), Waker::new(|| ()))
    }

    /// What the store holds of a segment, as a file.
    fn stored(sealed: &SealedSegment, dir: &Path) -> std::path::PathBuf {
        let storage = MemoryStorage::new();
        let file = sealed.upload(&storage, &Cancellation::default()).unwrap();
        let local = dir.join("fetched");
        fetch(&storage, &file, &local).unwrap();
        local
    }

    fn reference(records: u64) -> SegmentReference {
        let file = FileHandle { name: "s".into(), path: "job/s".into(), bytes: 0, hash: String::new() };
        SegmentReference {
            topic: "t".into(),
            file,
            producer: "p".into(),
            epoch: 4,
            first_sequence: 7,
            records,
        }
    }

    #[test]
    fn records_come_back_with_the_ids_that_they_were_sealed_with_and_the_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let staged = staged_bytes();
        let mut open = OpenSegment::create(dir.path(), 7, &staged).unwrap();
        let record =
            |n: u8| Record { key: Some(vec![n].into()), value: Some(vec![n; 9].into()), ..Record::default() };
        (0..5).for_each(|n| open.append(&record(n)).unwrap());
        assert_eq!(open.next_sequence(), 12);
        open.flush().unwrap();
        let sealed = open.seal("job/s".into());
        assert!(staged.get() > 0 && dir.path().join("segment-7").exists());
        let path = stored(&sealed, dir.path());
        assert!(staged.get() == 0 && !dir.path().join("segment-7").exists(), "what is stored is not kept");
        let reference = reference(5);
        let mut reader = SegmentReader::open(&path, &reference).unwrap();
        for n in 0..5u8 {
            let id = Some(RecordId { producer: "p".into(), epoch: 4, sequence: 7 + u64::from(n) });
            assert_eq!(reader.next_record().unwrap(), Some(Record { id, ..record(n) }));
        }
        assert_eq!(reader.next_record().unwrap(), None);
    }

    #[test]
    fn a_file_that_ends_too_early_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = OpenSegment::create(dir.path(), 7, &staged_bytes()).unwrap();
        open.append(&Record::default()).unwrap();
        open.flush().unwrap();
        let path = stored(&open.seal("job/s".into()), dir.path());
        let reference = reference(2);
        let mut reader = SegmentReader::open(&path, &reference).unwrap();
        assert!(reader.next_record().unwrap().is_some());
        assert!(reader.next_record().unwrap_err().to_string().contains("job/s, record 1: is missing"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s");
            let reference = reference(3);
            for head in [&[][..], MAGIC] {
                std::fs::write(&path, [head, &bytes].concat()).unwrap();
                if let Ok(mut reader) = SegmentReader::open(&path, &reference) {
                    while let Ok(Some(_)) = reader.next_record() {}
                }
            }
        }
    }
}
