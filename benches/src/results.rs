//! The rows of the report: a table for people, `results.json` for machines.

use std::path::Path;

use serde_json::{Value, json};
use thalweg_engine::{Error, Result};

/// One line of the report.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// The subject's median.
    pub value: f64,
    /// Of both values.
    pub unit: &'static str,
    /// What it is compared with.
    pub baseline: &'static str,
    /// Its median.
    pub baseline_value: f64,
    /// What the aim says, for people.
    pub aim: &'static str,
}

impl Row {
    /// Value by baseline value.
    pub fn ratio(&self) -> f64 {
        self.value / self.baseline_value
    }

    fn json(&self) -> Value {
        // JSON knows no NaN: what was not measured is null.
        json!({
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "baseline": self.baseline,
            "baseline_value": self.baseline_value,
            "ratio": self.ratio(),
        })
    }
}

/// The table.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<30} {:>14} {:<22} {:>14} {:>7}  {:<38} {}\n",
        "name", "value", "unit", "baseline", "ratio", "baseline is", "aim"
    );
    for row in rows {
        text += &format!(
            "{:<30} {:>14} {:<22} {:>14} {:>7}  {:<38} {}\n",
            row.name,
            number(row.value),
            row.unit,
            number(row.baseline_value),
            number(row.ratio()),
            row.baseline,
            row.aim
        );
    }
    text
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "-".to_string(),
        value if value.abs() >= 1e5 => format!("{:.3} M", value / 1e6),
        value if value.abs() >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.3}"),
    }
}

/// Writes `results.json`.
///
/// # Errors
/// An external error that names the file.
pub fn write(rows: &[Row], path: &Path) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::external(format!("cannot write {}", path.display())).caused_by(error);
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let list = Value::Array(rows.iter().map(Row::json).collect());
    std::fs::write(path, format!("{list:#}\n")).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_six_fields_and_null_for_what_is_not_known() {
        let row = Row {
            name: "n".into(),
            value: 3.0,
            unit: "ms",
            baseline: "b",
            baseline_value: f64::NAN,
            aim: "",
        };
        let json = row.json();
        assert_eq!(json.as_object().unwrap().len(), 6);
        assert_eq!((&json["value"], &json["baseline_value"]), (&json!(3.0), &Value::Null));
    }
}
