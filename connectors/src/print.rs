//! A sink that shows rows to people: one JSON object a line.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step, single_input,
};
use thalweg_engine::record::{Batch, EdgeSchema, Mode};
use thalweg_engine::state::StateIdentity;
use thalweg_engine::{Error, Result};

use crate::format::{EncodedRows, Encoder, JsonEncoder};
use crate::sink::{Sink, SinkParts};

/// Where lines go; shared by the instances, a batch is written without a break.
type Out = Arc<Mutex<Box<dyn Write + Send>>>;

/// Prints rows of any mode to standard output. At least once: after a restore, rows since the
/// checkpoint are printed again. With more than one instance each line begins with its number.
#[derive(Clone)]
pub struct PrintSink {
    out: Out,
    prefix: Option<String>,
}

impl Default for PrintSink {
    fn default() -> Self {
        Self::to(std::io::stdout())
    }
}

impl PrintSink {
    /// Prints to standard output.
    pub fn new() -> PrintSink {
        Self::default()
    }

    /// Prints elsewhere.
    pub fn to(out: impl Write + Send + 'static) -> PrintSink {
        PrintSink { out: Arc::new(Mutex::new(Box::new(out))), prefix: None }
    }

    /// Begins each line with this and a space.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> PrintSink {
        self.prefix = Some(prefix.into());
        self
    }
}

impl Sink for PrintSink {
    fn into_parts(self) -> SinkParts {
        SinkParts { factory: Arc::new(self), committer: None }
    }
}

impl OperatorFactory for PrintSink {
    fn name(&self) -> String {
        "print".to_string()
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        let prefix = self.prefix.clone().map(|prefix| format!("{prefix} ")).unwrap_or_default();
        Ok(Box::new(Print {
            out: Arc::clone(&self.out),
            prefix,
            encoder: JsonEncoder::new(),
            rows: EncodedRows::new(),
        }))
    }

    fn takes(&self, _input: usize, _mode: &Mode) -> bool {
        true
    }

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        single_input(inputs)?;
        Ok(Vec::new())
    }

    fn identity(&self, _inputs: &[EdgeSchema]) -> Option<StateIdentity> {
        None
    }
}

struct Print {
    out: Out,
    prefix: String,
    encoder: JsonEncoder,
    rows: EncodedRows,
}

impl Operator for Print {
    fn open(&mut self, cx: &mut OpenContext<'_>) -> Result<()> {
        if cx.info.parallelism > 1 {
            self.prefix.push_str(&format!("{}> ", cx.info.subtask));
        }
        Ok(())
    }

    fn process(&mut self, _input: usize, batch: Batch, _cx: &mut OperatorContext<'_>) -> Result<Step> {
        self.rows.clear();
        self.encoder.encode(batch.records(), &mut self.rows)?;
        let mut lines = Vec::with_capacity(self.rows.bytes().len() + 64);
        for row in self.rows.iter() {
            lines.extend_from_slice(self.prefix.as_bytes());
            lines.extend_from_slice(row);
            lines.push(b'\n');
        }
        let written = self.out.lock().write_all(&lines);
        written.map_err(|error| Error::external("cannot print").caused_by(error))?;
        Ok(Step::Done)
    }

    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<OperatorSnapshot> {
        let flushed = self.out.lock().flush();
        flushed.map_err(|error| Error::external("cannot print").caused_by(error))?;
        Ok(OperatorSnapshot::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sink::suite_rows;
    use thalweg_engine::time::Watermark;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_row_is_a_line() {
        let out = Shared::default();
        let mut print = PrintSink::to(out.clone()).prefix("rows").create().unwrap();
        let (mut outputs, mut wake_at) = (Vec::new(), None);
        let mut cx = OperatorContext::new(&mut outputs, &mut wake_at, Watermark::MIN, 0);
        assert_eq!(print.process(0, Batch::new(suite_rows(7..9).unwrap()), &mut cx).unwrap(), Step::Done);
        let text = String::from_utf8(out.0.lock().clone()).unwrap();
        let expected = concat!(
            "rows {\"n\":7,\"s\":null}\n",
            "rows {\"n\":8,\"s\":\"a string, \\\"8\\\", longer than a view\"}\n"
        );
        assert_eq!(text, expected);
    }
}
