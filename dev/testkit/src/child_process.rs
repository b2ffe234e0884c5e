//! A process under test: its output goes to files, it can be killed at any moment, and it never outlives its value.

use std::{
    fs::File,
    io::Write,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{Error, Result, error::Doing, eventually};

/// How much of the output an error shows.
const TAIL_BYTES: usize = 4_000;

/// A running child whose standard output and error are kept in files. Dropped, it is killed.
#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
    output: TempDir,
    what: String,
}

impl ChildProcess {
    /// Starts `command`, with nothing on its standard input.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let what = format!("{command:?}");
        let output = tempfile::tempdir().doing(|| "making a directory for a child's output".into())?;
        let file = |name| {
            File::create(output.path().join(name)).doing(|| format!("making a file for a child's {name}"))
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(file("stdout")?)
            .stderr(file("stderr")?)
            .spawn()
            .doing(|| format!("starting {what}"))?;
        Ok(ChildProcess { child, output, what })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with SIGKILL, as `kill -9` would, and waits until it is gone. No error if it has ended before.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.child.kill().doing(|| format!("killing {}", self.what))?;
        self.child.wait().doing(|| format!("waiting for {}", self.what))
    }

    /// Sends SIGTERM and does not wait.
    ///
    /// # Errors
    /// When the process has ended, or the system refuses.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(libc::SIGTERM)
    }

    /// Sends SIGINT, as Ctrl-C would, and does not wait.
    ///
    /// # Errors
    /// When the process has ended, or the system refuses.
    pub fn interrupt(&mut self) -> Result<()> {
        self.signal(libc::SIGINT)
    }

    fn signal(&mut self, signal: i32) -> Result<()> {
        if let Some(status) = self.status()? {
            return Err(Error::new(format!("signalling {}", self.what), format!("it has ended: {status}")));
        }
        let pid = libc::pid_t::try_from(self.child.id()).doing(|| "a process id".into())?;
        // SAFETY: kill() takes two integers. The pid is ours: the child has not been waited for, so it is not reused.
        if unsafe { libc::kill(pid, signal) } == 0 {
            return Ok(());
        }
        Err(Error::new(format!("signalling {}", self.what), std::io::Error::last_os_error()))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().doing(|| format!("looking at {}", self.what))
    }

    /// Waits for its end, for at most `bound`.
    ///
    /// # Errors
    /// When the time is up; the error shows the end of its output, and the child goes on.
    pub fn wait(&mut self, bound: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.what);
        eventually(bound, &what, || self.status().transpose()).map_err(|error| self.with_output(error))?
    }

    /// Waits until its output or error has `text` in it, for at most `bound`.
    ///
    /// # Errors
    /// When the child ends without it, or the time is up; the error shows the end of its output.
    pub fn wait_for_output(&mut self, text: &str, bound: Duration) -> Result<()> {
        let what = format!("{text:?} from {}", self.what);
        let found = eventually(bound, &what, || {
            // The status first: what it wrote before its end is then seen.
            let ended = self.status().transpose();
            if self.stdout().contains(text) || self.stderr().contains(text) {
                return Some(Ok(()));
            }
            ended.map(|ended| {
                Err(Error::new(format!("waiting for {what}"), format!("it has ended: {ended:?}")))
            })
        });
        found.and_then(|found| found).map_err(|error| self.with_output(error))
    }

    /// What it has written to its standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// What it has written to its standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.output.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn with_output(&self, error: Error) -> Error {
        let tail = |text: String| {
            String::from_utf8_lossy(&text.as_bytes()[text.len().saturating_sub(TAIL_BYTES)..]).into_owned()
        };
        let (out, err) = (tail(self.stdout()), tail(self.stderr()));
        Error::new(error.to_string(), format!("its output ends:\n{out}\nits errors end:\n{err}"))
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if let Err(error) = self.kill9() {
            let _ = writeln!(std::io::stderr(), "{error}");
        }
    }
}
