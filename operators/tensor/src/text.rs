//! Text to token ids: Hugging Face's `tokenizers`, a column at a time.
//!
//! That crate would split batches over a thread pool of the whole process; here a job has been given
//! its threads, so rows are encoded one by one, on a pool of our own where there is more than one.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tokenizers::utils::truncation::TruncationParams;

use crate::{Element, Error, Result, Tensor};

/// A tokenizer (WordPiece, BPE, unigram) as its `tokenizer.json` describes it.
#[derive(Clone)]
pub struct Tokenizer {
    name: Arc<str>,
    inner: Arc<tokenizers::Tokenizer>,
    hash: [u8; 32],
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tokenizer").field(&self.name).finish()
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let name = path.as_ref().display().to_string();
        let bytes = std::fs::read(path).map_err(|source| Error::Io { what: name.clone(), source })?;
        Tokenizer::from_bytes(&name, &bytes)
    }

    /// The same of a file that is in memory; its name is for errors.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Tokenizer> {
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| Error::weights(name, format!("is no tokenizer: {error}")))?;
        // Padding and truncation are ours: rows are packed, and an input says how long one may be.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| Error::weights(name, error.to_string()))?;
        let hash = *blake3::hash(bytes).as_bytes();
        Ok(Tokenizer { name: name.into(), inner: Arc::new(inner), hash })
    }

    /// BLAKE3 of its file.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// One more than the greatest id that it makes.
    pub fn id_bound(&self) -> usize {
        self.inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }

    /// Makes it ready for a column whose rows are cut to `length_max` tokens, special ones included;
    /// `threads` may encode at once, the caller's among them.
    ///
    /// # Errors
    /// When `length_max` leaves no room beside the special tokens, or threads cannot be started.
    pub fn encoder(&self, length_max: usize, threads: usize) -> Result<TextEncoder> {
        let special = self.special_tokens();
        if length_max <= special {
            return Err(Error::weights(
                &*self.name,
                format!("length_max is {length_max}, and {special} special tokens stand in every row"),
            ));
        }
        let mut inner = (*self.inner).clone();
        inner
            .with_truncation(Some(TruncationParams { max_length: length_max, ..Default::default() }))
            .map_err(|error| Error::weights(&*self.name, error.to_string()))?;
        let pool = match threads {
            0 | 1 => None,
            _ => Some(
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .thread_name(|index| format!("tokenizer-{index}"))
                    .build()
                    .map_err(|error| Error::weights(&*self.name, error.to_string()))?,
            ),
        };
        Ok(TextEncoder { name: self.name.clone(), inner, pool })
    }

    fn special_tokens(&self) -> usize {
        self.inner.encode_fast("", true).map_or(0, |encoding| encoding.len())
    }
}

/// A tokenizer with a length and threads.
pub struct TextEncoder {
    name: Arc<str>,
    inner: tokenizers::Tokenizer,
    pool: Option<rayon::ThreadPool>,
}

/// Rows that are encoded by one thread at a time: enough to hide what handing them over costs.
const ROWS_PER_PART: usize = 16;

impl TextEncoder {
    /// The ids of a column of `Utf8`, `LargeUtf8` or `Utf8View`, packed; a null row has none.
    ///
    /// # Errors
    /// When the column is of another type, a row cannot be encoded, or all rows together have more
    /// than `i32::MAX` tokens.
    pub fn encode(&self, column: &dyn Array) -> Result<Tensor> {
        let texts: Vec<Option<&str>> = match column.data_type() {
            DataType::Utf8 => column.as_string::<i32>().iter().collect(),
            DataType::LargeUtf8 => column.as_string::<i64>().iter().collect(),
            DataType::Utf8View => column.as_string_view().iter().collect(),
            other => return Err(Error::input("text", format!("is of type {other}, not of text"))),
        };
        self.encode_rows(&texts)
    }

    /// The ids of each text, packed; a row without text has none.
    ///
    /// # Errors
    /// As [`TextEncoder::encode`].
    pub fn encode_rows(&self, texts: &[Option<&str>]) -> Result<Tensor> {
        let parts = match &self.pool {
            Some(pool) if texts.len() > ROWS_PER_PART => {
                let parts: Vec<&[Option<&str>]> = texts.chunks(ROWS_PER_PART).collect();
                pool.install(|| {
                    parts.into_par_iter().map(|part| self.encode_part(part)).collect::<Result<Vec<Part>>>()
                })?
            }
            _ => vec![self.encode_part(texts)?],
        };
        let mut ids = Vec::with_capacity(parts.iter().map(|part| part.ids.len()).sum());
        let mut offsets: Vec<i32> = Vec::with_capacity(texts.len() + 1);
        offsets.push(0);
        let mut end = 0usize;
        for part in parts {
            ids.extend_from_slice(&part.ids);
            for length in part.lengths {
                end += length;
                offsets.push(i32::try_from(end).map_err(|_| self.failed("more than 2^31 tokens"))?);
            }
        }
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        Tensor::ragged(Element::I32, [], offsets, Buffer::from_vec(ids))
    }

    fn encode_part(&self, texts: &[Option<&str>]) -> Result<Part> {
        let mut part = Part { ids: Vec::new(), lengths: Vec::with_capacity(texts.len()) };
        for text in texts {
            let before = part.ids.len();
            if let Some(text) = text {
                let encoding =
                    self.inner.encode_fast(*text, true).map_err(|error| self.failed(error.to_string()))?;
                part.ids.extend(encoding.get_ids().iter().map(|&id| id as i32));
            }
            part.lengths.push(part.ids.len() - before);
        }
        Ok(part)
    }

    fn failed(&self, reason: impl Into<String>) -> Error {
        Error::input(format!("text of {}", self.name), reason)
    }
}

struct Part {
    ids: Vec<i32>,
    lengths: Vec<usize>,
}
