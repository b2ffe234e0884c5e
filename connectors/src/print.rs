//! A sink that shows rows to people: one JSON object a line.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use thalweg_engine::checkpoint::CheckpointId;
use thalweg_engine::operator::{
    OpenContext, Operator, OperatorContext, OperatorFactory, OperatorSnapshot, Step, single_input,
};
use thalweg_engine::record::{Batch, EdgeSchema};
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

    fn outputs(&self, inputs: &[EdgeSchema]) -> Result<Vec<EdgeSchema>> {
        single_input(inputs)?;
        Ok(Vec::new())
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
