//! Structured logs on standard error. What came out of the environment or a file is masked in them.

use std::backtrace::Backtrace;
use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;

use super::arguments::LogFormat;
use crate::config::Masks;

/// The variable that says what is logged.
const FILTER_VARIABLE: &str = "THALWEG_LOG";
/// What is logged unless somebody says otherwise. The Azure client says every attempt of a request
/// that fails; the engine says the same once a minute.
const FILTER: &str = "info,typespec_client_core=warn";

/// Starts logging, once per process.
///
/// # Errors
/// A sentence about a filter that cannot be read.
pub fn start(format: LogFormat, filter: Option<&str>, masks: &Masks) -> Result<(), String> {
    let text = match filter {
        Some(filter) => filter.to_string(),
        None => std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| FILTER.to_string()),
    };
    let filter = EnvFilter::try_new(&text).map_err(|error| format!("log filter `{text}`: {error}"))?;
    let masks = masks.clone();
    let masked = move || MaskedWriter { out: io::stderr(), masks: masks.clone() };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(masked);
    // A second start in one process (a test) keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Says a panic as the standard library does, masked.
pub fn mask_panics(masks: &Masks) {
    let masks = masks.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        let text = format!("thread '{name}': {panic}\n{}", Backtrace::capture());
        eprintln!("{}", masks.apply(&text));
    }));
}

/// Masks what is written to it. An event is written whole, so nothing is cut in two.
struct MaskedWriter<W> {
    out: W,
    masks: Masks,
}

impl<W: Write> Write for MaskedWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.out.write_all(self.masks.apply(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
