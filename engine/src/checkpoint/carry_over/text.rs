//! The table as text.

use std::fmt;

use super::{CarriedState, CarryOver, Fate, HeldState};

impl fmt::Display for HeldState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.identity, &self.what) {
            (Some(identity), Some(what)) => write!(f, "{identity}: {what}"),
            (Some(identity), None) => write!(f, "{identity}"),
            (None, what) => f.write_str(what.as_deref().unwrap_or("nothing")),
        }
    }
}

impl CarriedState {
    /// Why this keeps the job from running, and what to do; `None` when it does not. `renamed` is an
    /// operator that is new and has the same state.
    fn refused(&self, renamed: Option<&str>) -> Option<String> {
        let uid = &self.uid;
        let held = self.held.as_ref().map(HeldState::to_string).unwrap_or_default();
        match &self.fate {
            Fate::Gone { allowed: false } => {
                let renamed = renamed.map_or_else(
                    || format!("if it has another name now, say `uid_was: {uid}` there"),
                    |new| format!("if {new}, which is new, is the same, say `uid_was: {uid}` there"),
                );
                Some(format!(
                    "gone: {uid} is in the checkpoint ({held}), and the job has no such operator; {renamed}; \
                     to drop its state, --allow-dropped-state {uid}"
                ))
            }
            Fate::Changed { from, differences, allowed: false } => {
                let wanted = self.wanted.as_ref().map(ToString::to_string).unwrap_or_default();
                let was = if from == uid { String::new() } else { format!(", which was {from},") };
                Some(format!(
                    "changed: {uid}{was} does not fit its state: {}; in the checkpoint: {held}; in the job: \
                     {wanted}; to start it empty, --start-empty {uid}",
                    differences.join(", ")
                ))
            }
            _ => None,
        }
    }

    fn word(&self) -> &'static str {
        match &self.fate {
            Fate::Kept { .. } => "kept",
            Fate::New => "new",
            Fate::Gone { .. } => "gone",
            Fate::Changed { .. } => "changed",
        }
    }

    /// What becomes of it, in a few words.
    pub fn outcome(&self) -> String {
        match &self.fate {
            Fate::Kept { from } if *from == self.uid => String::new(),
            Fate::Kept { from } => format!("was {from}"),
            Fate::New => "starts empty".to_string(),
            Fate::Gone { allowed: true } => "its state is dropped, as allowed".to_string(),
            Fate::Gone { allowed: false } => "refused".to_string(),
            Fate::Changed { differences, allowed, .. } => {
                let what = if *allowed { "starts empty, as allowed" } else { "refused" };
                format!("{what}: {}", differences.join(", "))
            }
        }
    }
}

impl CarryOver {
    /// What keeps the job from running, each with what to do.
    pub(super) fn refused(&self) -> Vec<String> {
        let mut refused = Vec::new();
        if let Some((held, wanted)) = self.key_groups {
            refused.push(format!(
                "max_parallelism is {wanted}, and the checkpoint was made with {held}: it is fixed for a \
                 job's life"
            ));
        }
        refused.extend(self.rows.iter().filter_map(|row| row.refused(self.renamed(row))));
        refused
    }

    /// The one operator that is new and has the state of a row that is gone.
    fn renamed(&self, gone: &CarriedState) -> Option<&str> {
        let held = gone.held.as_ref()?.identity.as_ref();
        let mut new = self.rows.iter().filter(|row| row.fate == Fate::New && row.wanted.as_ref() == held);
        let first = new.next()?;
        new.next().is_none().then_some(first.uid.as_str())
    }

    /// How many operators are kept, new and so on, in one line.
    pub fn summary(&self) -> String {
        let counts = ["kept", "new", "changed", "gone"].map(|word| {
            let count = self.rows.iter().filter(|row| row.word() == word).count();
            (count > 0 || word == "kept").then(|| format!("{count} {word}"))
        });
        let finished = if self.is_finished { ", finished" } else { "" };
        let counts = counts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        format!("checkpoint {}{finished}: {counts}", self.checkpoint)
    }
}

impl fmt::Display for CarryOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        let width = self.rows.iter().map(|row| row.uid.as_str().len()).max().unwrap_or(0);
        for row in &self.rows {
            let held = row.held.as_ref().map(HeldState::to_string);
            let said = row.wanted.as_ref().map(ToString::to_string).or(held).unwrap_or_default();
            let outcome = match row.outcome() {
                outcome if outcome.is_empty() => outcome,
                outcome => format!("  ({outcome})"),
            };
            writeln!(f, "  {:<7}  {:<width$}  {said}{outcome}", row.word(), row.uid.as_str())?;
        }
        let refused = self.refused();
        if self.starts_over {
            return writeln!(f, "a run starts over");
        }
        if refused.is_empty() {
            return writeln!(f, "a run goes on from there");
        }
        writeln!(f, "a run is refused:")?;
        refused.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
