//! What one run of one side measured: named numbers, and the line that carries them from the child
//! process to its parent.

use std::collections::BTreeMap;

use thalweg_engine::{Error, Result};

/// Begins the line with the sample; everything else that a child prints is passed on.
const MARK: &str = "sample ";

/// Which side is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The Thalweg job.
    Subject,
    /// The bare loop.
    Baseline,
}

impl Role {
    /// The role of this name.
    ///
    /// # Errors
    /// A user error for any other word.
    pub fn parse(name: &str) -> Result<Role> {
        match name {
            "subject" => Ok(Role::Subject),
            "baseline" => Ok(Role::Baseline),
            _ => Err(Error::user(format!("{name:?} is neither subject nor baseline"))),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Subject => "subject",
            Role::Baseline => "baseline",
        }
    }
}

/// Named numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample(BTreeMap<String, f64>);

impl Sample {
    /// Adds a number.
    #[must_use]
    pub fn with(mut self, name: &str, value: f64) -> Sample {
        self.0.insert(name.to_string(), value);
        self
    }

    /// A number; NaN when nobody measured it.
    pub fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(f64::NAN)
    }

    /// All numbers in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// One line.
    pub fn to_line(&self) -> String {
        let numbers: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{MARK}{}", numbers.join(" "))
    }

    /// The sample of such a line.
    pub fn from_line(line: &str) -> Option<Sample> {
        let numbers = line.strip_prefix(MARK)?.split_whitespace().map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_string(), value.parse().ok()?))
        });
        numbers.collect::<Option<_>>().map(Sample)
    }

    /// The median of each number over several samples.
    pub fn median(samples: &[Sample]) -> Sample {
        let mut median = Sample::default();
        for (name, _) in samples.first().into_iter().flat_map(Sample::iter) {
            let values: Vec<f64> = samples.iter().map(|sample| sample.get(name)).collect();
            median = median.with(name, percentile(values, 50.0));
        }
        median
    }
}

/// The value below which `percent` of the values lie, by the nearest rank (rounded up); NaN of none.
pub fn percentile(mut values: Vec<f64>, percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_survives_its_line() {
        let sample = Sample::default().with("rows", 12_345_678.0).with("cpu", 0.25);
        assert_eq!(Sample::from_line(&sample.to_line()), Some(sample));
        assert_eq!(Sample::from_line("Kafka is ready"), None);
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(values.clone(), 50.0), 50.0);
        assert_eq!(percentile(values.clone(), 99.0), 99.0);
        assert_eq!(percentile(values, 100.0), 100.0);
        assert_eq!(percentile(vec![3.0, 1.0, 2.0], 50.0), 2.0);
        assert!(percentile(Vec::new(), 50.0).is_nan());
    }
}
