//! A canary in every place of a job file where a value may stand (F14): what came out of the
//! environment or a file is repeated by no mistake, no explanation, no log, no error, no metric and
//! no file.
//!
//! The places are walked, not listed: `streams.yaml` and `tensors.yaml` hold every key that the
//! reader asks for (a test lets the reader say which those are), and every value in them is replaced
//! once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod jobs;
mod process;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use jobs::{Given, JOBS, given, load};
use tree::{insert, places, replace, tables, write};

/// A key that no table knows and that is like none.
const NO_KEY: &str = "zzzzzzzzzzzz";

/// What sources, steps and sinks of all kinds have in common; it is enough that one has it.
const SHARED: [&str; 4] = ["parallelism", "input", "inputs", "uid_was"];

#[test]
fn the_jobs_without_canaries_have_no_mistakes() {
    for (name, text) in JOBS {
        if let Err(mistakes) = load(name, text, &given(None)) {
            panic!("{mistakes}");
        }
    }
}

#[test]
fn f14_every_key_that_the_reader_asks_for_stands_in_a_job_with_canaries() {
    // Tables that know the same keys are tables of the same kind, wherever they stand.
    let mut kinds: BTreeMap<BTreeSet<String>, BTreeSet<String>> = BTreeMap::new();
    for (name, text) in JOBS {
        let root = thalweg::config::parse(text).unwrap();
        for (path, keys) in tables(&root) {
            let Err(mistakes) = load(name, &write(&insert(&root, &path, NO_KEY)), &given(None)) else {
                continue;
            };
            let at = if path.is_empty() { NO_KEY.to_string() } else { format!("{path}.{NO_KEY}") };
            let unknown = mistakes.iter().find(|mistake| mistake.path == at);
            let Some(unknown) = unknown.filter(|mistake| mistake.message.starts_with("unknown key")) else {
                continue;
            };
            let known = unknown.message.split('`').skip(1).step_by(2).map(String::from).collect();
            kinds.entry(known).or_default().extend(keys);
        }
    }
    assert!(kinds.len() > 20, "{} kinds of tables", kinds.len());
    for shared in SHARED {
        assert!(kinds.values().any(|found| found.contains(shared)), "no canary stands under {shared}");
    }
    for (known, found) in kinds {
        let missing: Vec<_> =
            known.difference(&found).filter(|key| !SHARED.contains(&key.as_str())).collect();
        assert!(missing.is_empty(), "no canary stands under {missing:?}, keys beside {found:?}");
    }
}

/// What a place is given. Each is a form that some place takes; all have the canary in them.
const CANARIES: [&str; 5] = [
    "hush_canary",
    "amount > 7531 and hush_canary = 'Hush Canary'",
    "sum(hush_canary + 7531)",
    "http://hush-canary.example:7531/canary-path?canary-query",
    "/canary-one/canary two/x.canary",
];

fn shows_a_canary(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("canary") || text.contains("7531")
}

/// Whether a place is a name that is shown by its nature: the job's is a label of all its metrics.
fn is_public(path: &str) -> bool {
    path == "job"
}

#[test]
fn f14_no_place_of_a_job_file_repeats_what_came_from_elsewhere() {
    let (mut refused, mut taken) = (0, 0);
    for (name, text) in JOBS {
        let root = thalweg::config::parse(text).unwrap();
        let places = places(&root);
        assert!(places.len() > 50, "{name} has {} places", places.len());
        for path in places.iter().filter(|path| !is_public(path)) {
            // Opening a model takes its time.
            let count = if name == "tensors.yaml" { 2 } else { CANARIES.len() };
            for canary in CANARIES.iter().rev().take(count) {
                let text = write(&replace(&root, path, "${ELSEWHERE}"));
                let said = match load(name, &text, &given(Some(canary))) {
                    Ok(job) => {
                        taken += 1;
                        thalweg::job::explain(&job)
                    }
                    Err(mistakes) => {
                        refused += 1;
                        format!("{mistakes}\n{mistakes:?}")
                    }
                };
                // Only what the file itself says may remain of it.
                let said = said.replace("${ELSEWHERE}", "");
                assert!(!shows_a_canary(&said), "{name}: {path}: {canary}\n{said}");
            }
        }
    }
    assert!(refused > 500 && taken > 50, "{refused} were refused and {taken} taken");
}

#[test]
fn f14_the_checker_would_notice() {
    assert!(shows_a_canary("a Hush_Canary") && shows_a_canary("7531") && !shows_a_canary("job canaries"));
    let Given { variables, .. } = given(Some("x"));
    assert_eq!(variables["ELSEWHERE"], "x");
}
