//! One open text file: cuts it into records and decodes them in bulk.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use thalweg_engine::runtime::TARGET_BYTES;
use thalweg_engine::{Context, Error, Result};

use super::{FileFormat, FilePosition, io_error};
use crate::format::{Decoded, Decoder, Format};

/// Read from the file at a time.
const READ_BYTES: usize = 256 * 1024;
/// A chunk ends after so many bytes of records...
const CHUNK_BYTES_MAX: usize = TARGET_BYTES;
/// ...or so many records.
const CHUNK_RECORDS_MAX: usize = 8_192;
/// A record is at most this long: what holds a longer one is not a file of records.
const RECORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The records of a chunk, and the line at which each record that was pushed began.
pub(super) struct Chunk {
    pub(super) decoded: Decoded,
    pub(super) lines: Vec<u64>,
    pub(super) at_end: bool,
}

/// A text file that is being read.
pub(super) struct OpenLines {
    path: PathBuf,
    input: Box<dyn Read + Send>,
    decoder: Box<dyn Decoder>,
    /// Newlines within quotes belong to their record.
    quotes: bool,
    /// What was read and not yet taken: `buffer[taken..]`.
    buffer: Vec<u8>,
    taken: usize,
    input_ended: bool,
    position: FilePosition,
}

impl OpenLines {
    /// Opens a file and goes to `position`.
    pub(super) fn open(path: &Path, format: &FileFormat, position: FilePosition) -> Result<OpenLines> {
        let mut open = OpenLines {
            path: path.to_path_buf(),
            input: Box::new(std::io::empty()),
            decoder: match format {
                FileFormat::Lines(format) => format.decoder()?,
                FileFormat::Csv(csv) => csv.decoder()?,
                FileFormat::Parquet(_) => return Err(Error::internal("a Parquet file has no lines")),
            },
            quotes: matches!(format, FileFormat::Csv(_)),
            buffer: Vec::new(),
            taken: 0,
            input_ended: false,
            position: FilePosition { next: 0, line: 1, ..position },
        };
        if let FileFormat::Csv(csv) = format
            && csv.has_header()
        {
            open.restart(0)?;
            let Some(header) = open.next_record()? else {
                open.input_ended = true;
                return Ok(open);
            };
            open.decoder =
                csv.decoder_for_header(&open.buffer[header]).context(|| path.display().to_string())?;
        }
        if position.next > 0 {
            open.restart(position.next)?;
            open.position = position;
        } else if open.position.next == 0 {
            open.restart(0)?;
        }
        Ok(open)
    }

    /// Opens the file anew and goes to byte `offset` of its content.
    fn restart(&mut self, offset: u64) -> Result<()> {
        let path = &self.path;
        let failed = |error| io_error(path, "cannot open", error);
        let mut file = File::open(path).map_err(failed)?;
        self.input = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
            Some("zst") => Box::new(zstd::stream::read::Decoder::new(file).map_err(failed)?),
            _ => {
                let length = file.metadata().map_err(failed)?.len();
                if offset > length {
                    return Err(self.shrunk(offset));
                }
                file.seek(SeekFrom::Start(offset)).map_err(failed)?;
                self.input = Box::new(file);
                self.forget();
                return if offset == 0 { self.skip_byte_order_mark() } else { Ok(()) };
            }
        };
        let skipped = std::io::copy(&mut self.input.by_ref().take(offset), &mut std::io::sink());
        let skipped = skipped.map_err(|error| io_error(&self.path, "cannot unpack", error))?;
        if skipped < offset {
            return Err(self.shrunk(offset));
        }
        self.forget();
        if offset == 0 { self.skip_byte_order_mark() } else { Ok(()) }
    }

    fn shrunk(&self, offset: u64) -> Error {
        let path = self.path.display();
        Error::external(format!("{path}: it was read up to byte {offset} and is shorter now")).permanent()
    }

    fn forget(&mut self) {
        self.buffer.clear();
        self.taken = 0;
        self.input_ended = false;
    }

    fn skip_byte_order_mark(&mut self) -> Result<()> {
        while self.buffer.len() < 3 && !self.input_ended {
            self.fill()?;
        }
        if self.buffer.starts_with(b"\xef\xbb\xbf") {
            self.taken = 3;
            self.position.next = 3;
        }
        Ok(())
    }

    pub(super) fn position(&self) -> FilePosition {
        self.position
    }

    /// Decodes what comes next: up to a chunk.
    pub(super) fn read_chunk(&mut self) -> Result<Chunk> {
        let (mut bytes, mut lines, mut at_end) = (0, Vec::new(), false);
        while bytes < CHUNK_BYTES_MAX && lines.len() < CHUNK_RECORDS_MAX {
            let line = self.position.line;
            let Some(record) = self.next_record()? else {
                at_end = true;
                break;
            };
            bytes += record.len() + 1;
            let record = &self.buffer[record];
            if record.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            self.decoder.push(record);
            lines.push(line);
        }
        Ok(Chunk { decoded: self.decoder.flush()?, lines, at_end })
    }

    /// Takes the next record: where it lies in the buffer, without its line end.
    fn next_record(&mut self) -> Result<Option<Range<usize>>> {
        // Relative to `taken`, which moves when the buffer is refilled.
        let (mut searched, mut newlines, mut in_quotes) = (0, 0, false);
        loop {
            while let Some(found) = self.find_mark(searched) {
                searched = found + 1;
                if self.buffer[self.taken + found] == b'"' {
                    in_quotes = !in_quotes;
                } else if in_quotes {
                    newlines += 1;
                } else {
                    return Ok(Some(self.take_record(found, searched, newlines + 1)));
                }
            }
            searched = self.buffer.len() - self.taken;
            if searched > RECORD_BYTES_MAX {
                let (path, line) = (self.path.display(), self.position.line);
                let message = format!("{path}:{line}: a record of more than {RECORD_BYTES_MAX} bytes");
                return Err(Error::user(message));
            }
            if self.input_ended {
                let rest = (searched > 0).then(|| self.take_record(searched, searched, newlines + 1));
                return Ok(rest);
            }
            self.fill()?;
        }
    }

    fn take_record(&mut self, length: usize, with_end: usize, lines: u64) -> Range<usize> {
        let start = self.taken;
        self.taken += with_end;
        self.position.next += with_end as u64;
        self.position.line += lines;
        let record = &self.buffer[start..start + length];
        let length = record.strip_suffix(b"\r").map_or(length, <[u8]>::len);
        start..start + length
    }

    fn find_mark(&self, from: usize) -> Option<usize> {
        let rest = &self.buffer[self.taken + from..];
        let found =
            if self.quotes { memchr::memchr2(b'\n', b'"', rest) } else { memchr::memchr(b'\n', rest) };
        found.map(|found| from + found)
    }

    /// Reads more behind what is not yet taken.
    fn fill(&mut self) -> Result<()> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let read = loop {
            match self.input.read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(filled + read.as_ref().map_or(0, |read| *read));
        let read = read.map_err(|error| io_error(&self.path, "cannot read", error))?;
        self.input_ended = read == 0;
        Ok(())
    }
}
