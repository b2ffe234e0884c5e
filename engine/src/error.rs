//! The engine's error: what went wrong, whose it is, whether a retry can help, and the path of
//! contexts (operator, split, file) that it gathered on its way up.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A result whose error is the engine's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose an error is; it decides who is told and what the runner's exit code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The job's author: bad configuration, a bad expression, a record that cannot be decoded.
    User,
    /// The world: a broker, an object store, a disk.
    External,
    /// The engine: a broken invariant. It is a bug.
    Internal,
}

/// What an error is about, where somebody decides by it what to do next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// Nothing that anybody decides by.
    #[default]
    Other,
    /// What a checkpoint names is not there, or is not what was written: the store has answered, and
    /// no retry mends it. Never said of what could not be read.
    Damaged,
    /// The checkpoint store did not answer (a retry may help), or refused to (it does not, until
    /// somebody mends a right). It says nothing of what is stored.
    Store,
}

/// An error with its blame, its cause and the contexts that were added on the way up.
///
/// `Display` prints the outermost context first and the cause last, on one line; `Debug` adds whose
/// the error is, for it is what a `main` that returns one prints.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    blame: Blame,
    kind: ErrorKind,
    retryable: bool,
    message: String,
    contexts: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    fn new(blame: Blame, retryable: bool, message: impl Into<String>) -> Self {
        let message = message.into();
        let (kind, contexts) = (ErrorKind::Other, Vec::new());
        Error { inner: Box::new(Inner { blame, kind, retryable, message, contexts, source: None }) }
    }

    /// An error of the job's author. A retry does not help.
    pub fn user(message: impl Into<String>) -> Self {
        Self::new(Blame::User, false, message)
    }

    /// An error of the world around the engine. A retry may help.
    pub fn external(message: impl Into<String>) -> Self {
        Self::new(Blame::External, true, message)
    }

    /// An external error of the checkpoint store that did not answer; with [`Error::permanent`], of
    /// one that refused to.
    pub fn store(message: impl Into<String>) -> Self {
        Self::external(message).of_kind(ErrorKind::Store)
    }

    /// An external, permanent error: what a checkpoint names is not there, or not what was written.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::external(message).permanent().of_kind(ErrorKind::Damaged)
    }

    /// A broken invariant of the engine. A retry does not help.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Blame::Internal, false, message)
    }

    fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.inner.kind = kind;
        self
    }

    /// Says that a retry cannot help (a fenced coordinator, a damaged file).
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.inner.retryable = false;
        self
    }

    /// Attaches the error that caused this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Adds an outer context, such as `operator "windows" (3/4)`.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.inner.contexts.push(context.into());
        self
    }

    /// Whose the error is.
    pub fn blame(&self) -> Blame {
        self.inner.blame
    }

    /// What it is about.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether trying again can help.
    pub fn is_retryable(&self) -> bool {
        self.inner.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for context in self.inner.contexts.iter().rev() {
            write!(f, "{context}: ")?;
        }
        f.write_str(&self.inner.message)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?} error)", self.inner.blame)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_ref().map(|source| source.as_ref() as _)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::internal("arrow kernel failed").caused_by(error)
    }
}

/// Adds a context to the error of a `Result` on its way up.
pub trait Context<T> {
    /// Adds `context()` when this is an error.
    ///
    /// # Errors
    /// The same error, with the context in front.
    fn context(self, context: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, context: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| error.into().context(context()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_come_outermost_first_and_the_cause_last() {
        let io = std::io::Error::other("disk on fire");
        let error = Error::external("cannot write").caused_by(io).context("file a").context("operator b");
        assert_eq!(error.to_string(), "operator b: file a: cannot write: disk on fire");
        assert_eq!(format!("{error:?}"), format!("{error} (External error)"));
        assert!(error.is_retryable());
        assert_eq!((error.blame(), error.kind()), (Blame::External, ErrorKind::Other));
    }

    #[test]
    fn an_error_keeps_its_kind_on_its_way_up() {
        let refused = Error::store("403").permanent().context("checkpoint 1-2");
        assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::Store, false));
        let damaged = Error::damaged("file a").context("operator b");
        assert_eq!((damaged.kind(), damaged.is_retryable()), (ErrorKind::Damaged, false));
    }
}
