//! The demo: a parent that hosts two Kafka clusters and a Prism gateway, a child that runs the
//! flights job, an outage, a `kill -9`, and a reader that checks every result.

mod child;
mod clusters;
mod parent;
mod progress;
mod verify;

pub use child::{ChildOptions, run_child};
pub use parent::{KillAt, Report, Script, run_parent, run_script};
pub use verify::Verdict;

/// The clusters, by name.
pub const CLUSTERS: [&str; 2] = ["east", "west"];
/// The input.
pub const FLIGHTS: &str = "flights";
/// Partitions of the input in each cluster.
pub const PARTITIONS: i32 = 4;
/// Flights, mean and greatest delay per carrier and hour.
pub const CARRIER_HOURS: &str = "carrier-hours";
/// Aircraft that left late twice in a row.
pub const ALERTS: &str = "alerts";
/// Flights that never left, or whose aircraft is not known.
pub const INCOMPLETE: &str = "incomplete";
/// Rows that came behind the watermark.
pub const LATE: &str = "late";
/// What the job writes.
pub const OUTPUTS: [&str; 4] = [CARRIER_HOURS, ALERTS, INCOMPLETE, LATE];
