//! What the job must find, by a plain loop over the flights: no engine, no state, no watermark.

use std::collections::BTreeMap;

use thalweg::prelude::*;

use crate::data::Flight;

/// A delay beyond this counts as late. Minutes.
pub const LATE_MINUTES: i64 = 60;
const DAY: Micros = 24 * HOUR;

/// Flights of one carrier and hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CarrierHour {
    /// How many left.
    pub flights: i64,
    /// Their mean delay in minutes.
    pub mean_delay: f64,
    /// Their greatest delay in minutes.
    pub max_delay: i64,
}

/// Everything that the job must find.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// By carrier and the hour's beginning.
    pub hours: BTreeMap<(String, Micros), CarrierHour>,
    /// Aircraft, scheduled departure, and that of the late departure before it.
    pub alerts: BTreeMap<(String, Micros), Micros>,
    /// Flights that never left or whose aircraft is not known.
    pub incomplete: usize,
}

impl Expected {
    /// How many results there are.
    pub fn results(&self) -> usize {
        self.hours.len() + self.alerts.len()
    }
}

/// Finds everything.
///
/// # Errors
/// When a flight's time cannot be read.
pub fn expected(flights: &[Flight]) -> Result<Expected> {
    let mut found = Expected::default();
    let mut sums: BTreeMap<(String, Micros), (i64, i64, i64)> = BTreeMap::new();
    let mut by_aircraft: BTreeMap<&str, Vec<(Micros, i64, i64)>> = BTreeMap::new();
    for flight in flights {
        let (Some(delay), Some(tailnum)) = (flight.dep_delay, &flight.tailnum) else {
            found.incomplete += 1;
            continue;
        };
        let scheduled = flight.scheduled()?;
        let hour = scheduled - scheduled.rem_euclid(HOUR);
        let (count, sum, max) = sums.entry((flight.carrier.clone(), hour)).or_insert((0, 0, i64::MIN));
        (*count, *sum, *max) = (*count + 1, *sum + delay, (*max).max(delay));
        by_aircraft.entry(tailnum).or_default().push((scheduled, flight.flight, delay));
    }
    for (key, (flights, sum, max_delay)) in sums {
        found.hours.insert(key, CarrierHour { flights, mean_delay: sum as f64 / flights as f64, max_delay });
    }
    for (tailnum, mut departures) in by_aircraft {
        departures.sort_unstable();
        for pair in departures.windows(2) {
            let [(earlier, _, first), (at, _, second)] = [pair[0], pair[1]];
            if first > LATE_MINUTES && second > LATE_MINUTES && at - earlier <= DAY {
                found.alerts.insert((tailnum.to_string(), at), earlier);
            }
        }
    }
    Ok(found)
}
