//! A format for tests: the payload as text in one column `value`; what begins with `!` is bad.

use std::sync::Arc;

use arrow::array::{RecordBatch, StringViewBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use thalweg_connectors::format::{BadRecord, Decoded, Decoder, Format};
use thalweg_engine::Result;

pub struct Text;

impl Format for Text {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8View, false)]))
    }

    fn decoder(&self) -> Result<Box<dyn Decoder>> {
        Ok(Box::new(TextDecoder::default()))
    }

    fn describe(&self) -> String {
        "text".into()
    }
}

#[derive(Default)]
struct TextDecoder {
    pushed: usize,
    values: StringViewBuilder,
    bad: Vec<BadRecord>,
}

impl Decoder for TextDecoder {
    fn push(&mut self, payload: &[u8]) {
        match std::str::from_utf8(payload) {
            Ok(text) if !text.starts_with('!') => self.values.append_value(text),
            _ => self.bad.push(BadRecord {
                index: self.pushed,
                reason: "it begins with !".into(),
                payload: payload.to_vec(),
                time: None,
            }),
        }
        self.pushed += 1;
    }

    fn push_null(&mut self) {
        self.values.append_value("");
        self.pushed += 1;
    }

    fn pending(&self) -> usize {
        self.pushed
    }

    fn flush(&mut self) -> Result<Decoded> {
        self.pushed = 0;
        let records = RecordBatch::try_new(Text.schema(), vec![Arc::new(self.values.finish())])?;
        Ok(Decoded { records, bad: std::mem::take(&mut self.bad) })
    }
}
