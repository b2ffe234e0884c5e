//! Says what a job waits for before it is over: at once when somebody has asked it to end, when that
//! changes, and again every ten seconds.

use super::decision::AwaitedEnd;
use crate::time::{Micros, SECOND};

const SAID_EVERY: Micros = 10 * SECOND;

/// What was said last, and when.
#[derive(Debug, Default)]
pub(super) struct EndReport {
    said: Option<(String, Micros)>,
}

impl EndReport {
    /// Whether it is to be said now.
    pub(super) fn is_due(&mut self, now: Micros, awaited: Option<&AwaitedEnd>) -> bool {
        let Some(awaited) = awaited else {
            self.said = None;
            return false;
        };
        let is_due = match &self.said {
            Some((what, at)) => (awaited.is_asked && *what != awaited.what) || now - at >= SAID_EVERY,
            None => awaited.is_asked,
        };
        if is_due || self.said.is_none() {
            self.said = Some((awaited.what.clone(), now));
        }
        is_due
    }

    /// When to look again.
    pub(super) fn next_at(&self) -> Option<Micros> {
        self.said.as_ref().map(|(_, at)| at + SAID_EVERY)
    }
}

/// What is waited for in words; `doing` says what a task is doing.
pub(super) fn in_words(
    awaited: &AwaitedEnd,
    now: Micros,
    doing: impl Fn(&super::TaskId) -> String,
) -> String {
    let tasks: Vec<_> = awaited.tasks.iter().map(|id| format!("{id} ({})", doing(id))).collect();
    let mut said = format!("waiting for {}", awaited.what);
    if !tasks.is_empty() {
        said.push_str(&format!(" {}", tasks.join(", ")));
    }
    match awaited.until {
        Some((at, then)) => format!("{said}; in {} s {then}", (at - now).max(0) / SECOND),
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::super::TaskId;
    use super::*;
    use crate::graph::{ChainId, Uid};

    fn awaited(what: &str, is_asked: bool) -> AwaitedEnd {
        AwaitedEnd { what: what.into(), tasks: Vec::new(), until: None, is_asked }
    }

    #[test]
    fn a_stop_says_at_once_what_it_waits_for_and_again_when_it_changes_or_lasts() {
        let mut report = EndReport::default();
        assert!(!report.is_due(0, None));
        assert!(report.is_due(SECOND, Some(&awaited("a", true))));
        assert!(!report.is_due(2 * SECOND, Some(&awaited("a", true))));
        assert!(report.is_due(3 * SECOND, Some(&awaited("b", true))));
        assert_eq!(report.next_at(), Some(13 * SECOND));
        assert!(report.is_due(13 * SECOND, Some(&awaited("b", true))));
    }

    #[test]
    fn tasks_that_return_soon_before_a_restart_are_not_worth_a_word() {
        let mut report = EndReport::default();
        assert!(!report.is_due(0, Some(&awaited("a", false))));
        assert!(!report.is_due(9 * SECOND, Some(&awaited("a", false))));
        assert!(report.is_due(10 * SECOND, Some(&awaited("a", false))));
    }

    #[test]
    fn the_words_name_tasks_what_they_do_and_what_follows() {
        let id = TaskId { attempt: 1, chain: ChainId(0), subtask: 2, head: Uid::new("out").unwrap() };
        let awaited = AwaitedEnd {
            tasks: vec![id],
            until: Some((70 * SECOND, "it is given up")),
            ..awaited("checkpoint 1-4, not acknowledged by", true)
        };
        let said = in_words(&awaited, 10 * SECOND, |_| "in operator out for 9 s".into());
        assert_eq!(
            said,
            "waiting for checkpoint 1-4, not acknowledged by out[2]#1 (in operator out for 9 s); in 60 s it is given up"
        );
    }
}
