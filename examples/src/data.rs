//! The shipped flights: read from the compressed file, dealt to the two clusters, written as JSON.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;
use thalweg::prelude::*;

/// One line of the file, with the columns that the job reads; the names are the file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flight {
    /// Two letters.
    pub carrier: String,
    /// The flight's number.
    pub flight: i64,
    /// Which aircraft; not known for some that never left.
    pub tailnum: Option<String>,
    /// The airport that it leaves.
    pub origin: String,
    /// Where it goes.
    pub dest: String,
    /// Minutes; negative when early, none when it never left.
    pub dep_delay: Option<i64>,
    /// The scheduled departure's minute.
    pub minute: i64,
    /// The scheduled departure's hour, UTC, RFC 3339.
    pub time_hour: String,
}

/// Where the shipped file is: beside the sources, or below `THALWEG_DATA`.
pub fn shipped_file() -> PathBuf {
    let directory = std::env::var_os("THALWEG_DATA").map(PathBuf::from);
    let directory = directory.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("data"));
    directory.join("flights-2013-01.csv.zst")
}

/// Reads all flights, in the file's order.
///
/// # Errors
/// When the file is missing, or a line is not as the header says.
pub fn load(path: &Path) -> Result<Vec<Flight>> {
    let bad = |what: String| Error::user(format!("{}: {what}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| bad(error.to_string()))?;
    let unpacked = zstd::Decoder::new(file).map_err(|error| bad(error.to_string()))?;
    let mut lines = BufReader::new(unpacked).lines();
    let header = lines.next().transpose().map_err(|error| bad(error.to_string()))?.unwrap_or_default();
    let names: Vec<String> = header.split(',').map(str::to_string).collect();
    let mut flights = Vec::new();
    for (number, line) in lines.enumerate() {
        let line = line.map_err(|error| bad(error.to_string()))?;
        let values: Vec<&str> = line.split(',').collect();
        let text = |name: &str| {
            let index = names.iter().position(|known| known == name);
            let value = index.and_then(|index| values.get(index)).copied();
            value.ok_or_else(|| bad(format!("line {}: no {name}", number + 2)))
        };
        let number = |name: &str| {
            let value = text(name)?;
            value.parse::<i64>().map_err(|_| bad(format!("line {}: {name} is {value:?}", number + 2)))
        };
        let present = |name: &str| Ok::<_, Error>(text(name)? != "NA");
        flights.push(Flight {
            carrier: text("carrier")?.to_string(),
            flight: number("flight")?,
            tailnum: present("tailnum")?.then(|| text("tailnum").map(str::to_string)).transpose()?,
            origin: text("origin")?.to_string(),
            dest: text("dest")?.to_string(),
            dep_delay: present("dep_delay")?.then(|| number("dep_delay")).transpose()?,
            minute: number("minute")?,
            time_hour: text("time_hour")?.to_string(),
        });
    }
    Ok(flights)
}

impl Flight {
    /// Which cluster holds it: `east` what leaves EWR, `west` the rest.
    pub fn cluster(&self) -> &'static str {
        if self.origin == "EWR" { "east" } else { "west" }
    }

    /// The record's payload.
    ///
    /// # Errors
    /// An internal error; none that should come.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::internal("cannot write a flight").caused_by(error))
    }

    /// The scheduled departure in microseconds since 1970, UTC, by arithmetic of its own: the data
    /// is `YYYY-MM-DDTHH:MM:SSZ` (days from civil: Howard Hinnant's algorithm).
    ///
    /// # Errors
    /// A user error that shows a time that is not so.
    pub fn scheduled(&self) -> Result<Micros> {
        let part = |from: usize, to: usize| {
            let digits = self.time_hour.get(from..to).and_then(|digits| digits.parse::<i64>().ok());
            digits.ok_or_else(|| Error::user(format!("time_hour is {:?}", self.time_hour)))
        };
        let (year, month, day, hour) = (part(0, 4)?, part(5, 7)?, part(8, 10)?, part(11, 13)?);
        let year = if month <= 2 { year - 1 } else { year };
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
        let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
        Ok(((days * 24 + hour) * 60 + self.minute) * MINUTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_is_what_its_readme_says() {
        let flights = load(&shipped_file()).unwrap();
        assert_eq!(flights.len(), 27_004);
        assert_eq!(flights.iter().filter(|flight| flight.cluster() == "east").count(), 9_893);
        assert_eq!(flights.iter().filter(|flight| flight.dep_delay.is_none()).count(), 521);
        let first = flights.iter().map(|flight| flight.scheduled().unwrap()).min().unwrap();
        assert_eq!(first, 1_357_035_300 * 1_000_000, "2013-01-01T10:15:00Z");
    }
}
