//! A mistake in a configuration, and all of them together.

use std::fmt;

use super::Position;

/// One mistake: where it is, under which key, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where.
    pub at: Position,
    /// The path of keys, such as `sources.flights.format`; empty at the top.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
}

/// All mistakes of a file, in the order in which they stand in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    file: String,
    mistakes: Vec<Mistake>,
}

impl Mistakes {
    /// The mistakes of `file`, sorted by position; the same one is kept once.
    pub fn new(file: &str, mut mistakes: Vec<Mistake>) -> Self {
        mistakes.sort();
        mistakes.dedup();
        Mistakes { file: file.to_string(), mistakes }
    }

    /// The mistakes.
    pub fn iter(&self) -> impl Iterator<Item = &Mistake> {
        self.mistakes.iter()
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.mistakes.len()
    }
}

impl fmt::Display for Mistakes {
    /// A line each, as compilers write them: `file:line:column: key: what is wrong`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.mistakes {
            write!(f, "{}:{}:{}: ", self.file, mistake.at.line, mistake.at.column)?;
            if !mistake.path.is_empty() {
                write!(f, "{}: ", mistake.path)?;
            }
            writeln!(f, "{}", mistake.message)?;
        }
        let plural = if self.mistakes.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} {plural} in {}", self.mistakes.len(), self.file)
    }
}

impl std::error::Error for Mistakes {}
