//! Structured logs on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::arguments::LogFormat;

/// The variable that says what is logged.
const FILTER_VARIABLE: &str = "THALWEG_LOG";

/// Starts logging, once per process.
///
/// # Errors
/// A sentence about a filter that cannot be read.
pub fn start(format: LogFormat, filter: Option<&str>) -> Result<(), String> {
    let text = match filter {
        Some(filter) => filter.to_string(),
        None => std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| "info".to_string()),
    };
    let filter = EnvFilter::try_new(&text).map_err(|error| format!("log filter `{text}`: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in one process (a test) keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
