//! Reads `restart`: which strategy, and the keys that it has.

use thalweg_engine::cluster::RestartStrategy;
use thalweg_engine::time::{MINUTE, SECOND};

use crate::config::Table;

const ATTEMPTS_MAX: i64 = 1_000_000_000;

#[derive(Clone, Copy)]
enum Strategy {
    Exponential,
    Fixed,
    Rate,
    None,
}

/// The restart strategy of a job; the default one where the file does not say.
pub(super) fn read_restart(table: &Table<'_>) -> RestartStrategy {
    let checker = table.checker();
    let Some(table) = table.optional("restart").and_then(|node| checker.table(node)) else {
        return RestartStrategy::default();
    };
    let strategies = [
        ("exponential_delay", Strategy::Exponential),
        ("fixed_delay", Strategy::Fixed),
        ("failure_rate", Strategy::Rate),
        ("none", Strategy::None),
    ];
    let Some(strategy) = table.word("strategy", &strategies) else {
        return RestartStrategy::default();
    };
    let read = match strategy {
        Strategy::Exponential => read_exponential(&table),
        Strategy::Fixed => RestartStrategy::FixedDelay {
            attempts: table.integer("attempts", 0..=ATTEMPTS_MAX).map_or(3, |attempts| attempts as u32),
            delay: table.duration("delay").unwrap_or(SECOND),
        },
        Strategy::Rate => read_rate(&table),
        Strategy::None => RestartStrategy::None,
    };
    table.finish();
    read
}

fn read_exponential(table: &Table<'_>) -> RestartStrategy {
    let checker = table.checker();
    let initial = table.optional("initial").and_then(|node| {
        let initial = checker.duration(node)?;
        if initial == 0 {
            checker.mistake_at(node, "expected a first delay of more than 0s: it is doubled");
        }
        Some(initial)
    });
    let initial = initial.unwrap_or(SECOND);
    let max = table.optional("max").and_then(|node| {
        let max = checker.duration(node)?;
        if max < initial {
            checker
                .mistake_at(node, "expected a longest delay that is not shorter than the first, `initial`");
        }
        Some(max)
    });
    RestartStrategy::ExponentialDelay {
        initial,
        max: max.unwrap_or(initial.max(MINUTE)),
        reset_after: table.duration("reset_after").unwrap_or(10 * MINUTE),
        attempts: table.integer("attempts", 0..=ATTEMPTS_MAX).map(|attempts| attempts as u32),
    }
}

fn read_rate(table: &Table<'_>) -> RestartStrategy {
    let checker = table.checker();
    let failures = table
        .required("failures", "a number of failures that are tolerated")
        .and_then(|node| checker.integer(node, 1..=100_000));
    let within = table.required("within", "the span that they are counted in").and_then(|node| {
        let within = checker.duration(node)?;
        if within == 0 {
            checker.mistake_at(node, "expected a span of more than 0s");
        }
        Some(within)
    });
    RestartStrategy::FailureRate {
        failures: failures.unwrap_or(1) as u32,
        within: within.unwrap_or(MINUTE),
        delay: table.duration("delay").unwrap_or(SECOND),
    }
}
