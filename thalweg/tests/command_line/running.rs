//! A job that runs in a process of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A job that runs in a process of its own.
pub struct Running {
    child: std::process::Child,
    seen: Arc<Mutex<String>>,
    log: std::thread::JoinHandle<()>,
    address: String,
}

/// Starts a job with variables of its environment, and waits until its metrics are served.
pub fn start(directory: &Path, job: &str, variables: &[(&str, &str)]) -> Running {
    std::fs::write(directory.join("job.yaml"), job).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["run", "job.yaml", "--metrics-addr", "127.0.0.1:0", "--log-format", "json"])
        .current_dir(directory)
        .env_remove("THALWEG_LOG")
        .envs(variables.iter().copied())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    let address = loop {
        let line = log.next().expect("the job ended before it served metrics").unwrap();
        seen.push_str(&line);
        seen.push('\n');
        if let Ok(entry) = serde_json::from_str::<serde_json::Value>(&line)
            && let Some(address) = entry["address"].as_str()
        {
            break address.to_string();
        }
    };
    let seen = Arc::new(Mutex::new(seen));
    let shared = seen.clone();
    let log = std::thread::spawn(move || {
        for line in log.map_while(Result::ok) {
            let mut seen = shared.lock().unwrap();
            seen.push_str(&line);
            seen.push('\n');
        }
    });
    Running { child, seen, log, address }
}

impl Running {
    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The sum of a metric's series.
    pub fn metric(&self, name: &str) -> i64 {
        let mut connection = std::net::TcpStream::connect(&self.address).unwrap();
        write!(connection, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let series = answer.lines().filter(|line| line.starts_with(&format!("thalweg_{name}{{")));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok()).sum()
    }

    /// Waits until a metric is at least `least`.
    pub fn wait_for(&self, metric: &str, least: i64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let value = self.metric(metric);
            if value >= least {
                return;
            }
            let log = || self.seen.lock().unwrap().clone();
            assert!(Instant::now() < deadline, "{metric} at {value}, not {least}, for a minute:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until something is in the log.
    pub fn wait_for_log(&self, said: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.seen.lock().unwrap().contains(said) {
            assert!(Instant::now() < deadline, "{said:?} was not said for ten seconds");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child is ours and has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Waits for its end: exit code and log.
    pub fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        self.log.join().unwrap();
        let log = self.seen.lock().unwrap().clone();
        (status.code(), log)
    }
}

/// The rows of all finished files of a sink.
pub fn rows_of(directory: &Path) -> Vec<serde_json::Value> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let text: String = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
