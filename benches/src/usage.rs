//! What this process has used: processor time, from `getrusage` (the only `unsafe` here), and memory,
//! from `/proc`: `ru_maxrss` of a child begins with what its parent had when it was started.

use std::time::{Duration, Instant};

use crate::sample::Sample;

fn resources() -> libc::rusage {
    // SAFETY: `rusage` is plain numbers, for which zeroes are valid; the call fills what it is given.
    unsafe {
        let mut usage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    }
}

/// User and system time of all threads so far, in seconds.
pub fn core_seconds() -> f64 {
    let usage = resources();
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The most memory that was ever resident, in bytes; NaN where there is no `/proc`.
pub fn resident_max() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    kibibytes.map_or(f64::NAN, |kibibytes| kibibytes * 1024.0)
}

/// Measures from its making on.
pub struct Meter {
    started: Instant,
    cpu: f64,
    rows: u64,
}

impl Meter {
    /// Begins; `rows` are those so far.
    pub fn start(rows: u64) -> Meter {
        Meter { started: Instant::now(), cpu: core_seconds(), rows }
    }

    /// How long ago it began.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Rows, seconds and core-seconds since it began; `rows` are those by now.
    pub fn stop(&self, rows: u64) -> Sample {
        let (rows, cpu) = ((rows - self.rows) as f64, core_seconds() - self.cpu);
        let seconds = self.elapsed().as_secs_f64();
        Sample::default()
            .with("rows", rows)
            .with("seconds", seconds)
            .with("core_seconds", cpu)
            .with("rows_per_second", rows / seconds)
            .with("rows_per_core_second", rows / cpu)
            .with("resident_max", resident_max())
    }
}
