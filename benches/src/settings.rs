//! How long and how often to measure. The parent reads its arguments; its children get the same in
//! environment variables.

use std::time::Duration;

use thalweg_engine::{Context, Error, Result};

const SECONDS: &str = "THALWEG_BENCH_SECONDS";
const BOOTSTRAP: &str = "THALWEG_BENCH_KAFKA";
const RECORDS: &str = "THALWEG_BENCH_RECORDS";

/// What one side of a benchmark is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Runs of each side; the medians count.
    pub runs: usize,
    /// How long a steady job is measured.
    pub window: Duration,
    /// Records in the Kafka topic.
    pub records: u64,
    /// The broker, once there is one.
    pub bootstrap: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { runs: 3, window: Duration::from_secs(10), records: 4_000_000, bootstrap: None }
    }
}

impl Settings {
    /// The names asked for (none: all) and the settings.
    ///
    /// # Errors
    /// A user error for an argument that is not understood.
    pub fn parse(arguments: &[String]) -> Result<(Vec<String>, Settings)> {
        let mut settings = Settings::default();
        let mut names = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut number = || -> Result<u64> {
                let value = rest.next().ok_or_else(|| Error::user(format!("{argument} needs a number")))?;
                whole(argument, value)
            };
            match argument.as_str() {
                "--runs" => settings.runs = number()?.max(1) as usize,
                "--seconds" => settings.window = Duration::from_secs(number()?.max(1)),
                "--records" => settings.records = number()?.max(1),
                flag if flag.starts_with('-') => return Err(Error::user(format!("unknown option {flag}"))),
                list => names.extend(list.split(',').filter(|name| !name.is_empty()).map(str::to_string)),
            }
        }
        Ok((names, settings))
    }

    /// What the parent left for this process.
    ///
    /// # Errors
    /// A user error for a variable that is no number.
    pub fn from_environment() -> Result<Settings> {
        let mut settings = Settings::default();
        if let Ok(value) = std::env::var(SECONDS) {
            settings.window = Duration::from_secs(whole(SECONDS, &value)?);
        }
        if let Ok(value) = std::env::var(RECORDS) {
            settings.records = whole(RECORDS, &value)?;
        }
        settings.bootstrap = std::env::var(BOOTSTRAP).ok();
        Ok(settings)
    }

    /// The environment of a child.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables =
            vec![(SECONDS, self.window.as_secs().to_string()), (RECORDS, self.records.to_string())];
        variables.extend(self.bootstrap.iter().map(|bootstrap| (BOOTSTRAP, bootstrap.clone())));
        variables
    }

    /// The broker's address.
    ///
    /// # Errors
    /// A user error when there is none.
    pub fn bootstrap(&self) -> Result<&str> {
        self.bootstrap.as_deref().ok_or_else(|| Error::user(format!("{BOOTSTRAP} names no broker")))
    }
}

fn whole(name: &str, value: &str) -> Result<u64> {
    value
        .parse()
        .map_err(|error| Error::user("a whole number was expected").caused_by(error))
        .context(|| format!("{name} {value}"))
}
