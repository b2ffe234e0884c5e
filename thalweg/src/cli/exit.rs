//! What the process's exit code says.

/// Why the process ends. Documented for users in `thalweg --help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done. A bounded job has ended by itself; a file has no mistakes; a gateway was told to
    /// stop.
    Done,
    /// 1: the job failed, after its restarts.
    Failed,
    /// 2: the command line or a configuration is wrong; nothing was run.
    Mistaken,
    /// 3: a signal ended the job before its last checkpoint was complete; it goes on from the one
    /// before.
    Interrupted,
    /// 4: a task was cancelled and did not return in time; the process ended without it.
    Stuck,
    /// 128 + n: signal n (SIGINT 2, SIGTERM 15) ended the job after a last checkpoint.
    Stopped(i32),
}

impl Exit {
    /// The code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Mistaken => 2,
            Exit::Interrupted => 3,
            Exit::Stuck => 4,
            Exit::Stopped(signal) => 128_u8.saturating_add(u8::try_from(signal).unwrap_or(127)),
        }
    }
}

/// The table of exit codes, for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done: a bounded job has ended by itself, a file has no mistakes, a gateway was told to stop
  1    the job failed, after its restarts
  2    the command line or a configuration is wrong; nothing was run
  3    a signal ended the job before a last checkpoint was complete
  4    a task that was cancelled did not return; the process ended without it
  130  SIGINT (Ctrl-C) ended the job after a last checkpoint
  143  SIGTERM ended the job after a last checkpoint
The first signal finishes a last checkpoint and leaves; a second one leaves at once.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_that_are_documented() {
        let codes = [Exit::Done, Exit::Failed, Exit::Mistaken, Exit::Interrupted, Exit::Stuck];
        assert_eq!(codes.map(Exit::code), [0, 1, 2, 3, 4]);
        assert_eq!([Exit::Stopped(2), Exit::Stopped(15)].map(Exit::code), [130, 143]);
        for code in [0, 1, 2, 3, 4, 130, 143] {
            assert!(
                EXIT_CODES.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))),
                "{code}"
            );
        }
    }
}
