//! What the README shows holds: its job file runs, its commands are commands, its targets and
//! links are there. Its Rust program is a doc test of the crate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use thalweg::cli::Arguments;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let fence = format!("```{language}\n");
    let blocks = text.split(fence.as_str()).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_string()).collect()
}

fn commands() -> Vec<String> {
    let shell = blocks("sh").concat();
    let lines = shell.lines().map(|line| line.split('#').next().unwrap().trim().to_string());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_job_file_does_what_every_command_says() {
    let [job] = blocks("yaml").try_into().unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("job.yaml"), job).unwrap();
    std::os::unix::fs::symlink(root().join("examples"), directory.path().join("examples")).unwrap();
    let commands = commands();
    let ours = commands.iter().filter_map(|command| command.strip_prefix("thalweg "));
    let mut run = 0;
    for command in ours.filter(|command| command.contains("job.yaml")) {
        // Any free port will do for the metrics.
        let words = command.split_whitespace().map(|word| word.replace(":9100", ":0"));
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(words)
            .current_dir(directory.path())
            .env_remove("THALWEG_LOG")
            .output()
            .unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        run += 1;
    }
    assert!(run >= 4, "{commands:?}");
    let files = std::fs::read_dir(directory.path().join("out")).unwrap();
    let files = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let rows: usize = files.map(|path| std::fs::read_to_string(path).unwrap().lines().count()).sum();
    assert!(rows > 1_000, "{rows} carrier hours");
}

#[test]
fn every_command_is_one() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    for command in commands() {
        match command.split_once(' ') {
            Some(("make", target)) => {
                assert!(makefile.contains(&format!("\n{target}:")), "there is no target {target}");
            }
            Some(("thalweg", _)) => {
                Arguments::try_parse_from(command.split_whitespace()).unwrap();
            }
            _ => panic!("nobody checks {command:?}"),
        }
    }
}

#[test]
fn every_link_into_the_repository_leads_somewhere() {
    let text = readme();
    let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let own: Vec<_> = links.filter(|link| !link.starts_with("http")).collect();
    assert!(own.len() > 5, "{own:?}");
    for link in own {
        assert!(root().join(link).exists(), "{link} leads nowhere");
    }
}
