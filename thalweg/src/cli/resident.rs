//! How much memory the process holds, as the operating system counts it.

use thalweg_engine::metrics::{Gauge, Registry};

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resident {
    /// Now.
    pub now: u64,
    /// The most that it ever was.
    pub most: u64,
}

impl Resident {
    /// This process's; `None` where there is no `/proc`.
    pub fn of_this_process() -> Option<Resident> {
        Self::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Resident> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kibibytes << 10)
        };
        Some(Resident { now: bytes("VmRSS")?, most: bytes("VmHWM")? })
    }
}

/// The gauges that show it; a reading is taken when somebody looks.
pub(super) struct ResidentGauges {
    now: Gauge,
    most: Gauge,
}

impl ResidentGauges {
    /// Gauges of this registry.
    pub fn new(registry: &Registry) -> ResidentGauges {
        let group = registry.group(Vec::new());
        ResidentGauges {
            now: group.gauge("resident_bytes", "Memory of the process, as the system counts it."),
            most: group.gauge("resident_bytes_max", "The most memory that the process ever had."),
        }
    }

    /// Takes a reading.
    pub fn read(&self) {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        if let Some(resident) = Resident::of_this_process() {
            self.now.set(gauge(resident.now));
            self.most.set(gauge(resident.most));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_is_resident_and_most() {
        let status = "Name:\tthalweg\nVmPeak:\t  999 kB\nVmHWM:\t   300 kB\nVmRSS:\t   200 kB\n";
        assert_eq!(Resident::parse(status), Some(Resident { now: 200 << 10, most: 300 << 10 }));
        assert_eq!(Resident::parse("Name:\tthalweg\n"), None);
    }
}
