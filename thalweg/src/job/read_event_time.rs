//! Reads how a source or a step gets its event time and its watermarks.

use thalweg_engine::time::{AheadOf, MaxAhead, OnAhead};

use crate::config::{Node, Placed, Table, Text};

use super::read::placed;
use super::spec::{EventTimeSpec, WatermarksSpec};

/// `event_time` of a source.
pub(super) fn read_event_time<'t>(table: &'t Table<'_>) -> impl FnOnce(&Node) -> Option<EventTimeSpec> + 't {
    let checker = table.checker();
    move |node| {
        let table = checker.table(node)?;
        let read = read_watermarks(&table);
        table.finish();
        read
    }
}

/// The keys of an event time: of `event_time`, or of a step `watermarks`.
pub(super) fn read_watermarks(table: &Table<'_>) -> Option<EventTimeSpec> {
    let checker = table.checker();
    let column = table.optional("column").and_then(|node| placed(checker, node, "the name of a column"));
    let expression = table.optional("expression").and_then(|node| placed(checker, node, "an SQL expression"));
    if column.is_none() && expression.is_none() && !table.has("column") {
        table.missing("column", "the name of the column that holds the event time");
    }
    let watermarks = match table.optional("punctuated") {
        Some(node) => {
            if table.optional("out_of_order").is_some() {
                checker.mistake_at(node, "either `out_of_order` or `punctuated`, not both");
            }
            placed(checker, node, "an SQL expression").map(WatermarksSpec::Punctuated)
        }
        None => table
            .required("out_of_order", "how late a row may come, such as `2s`; `0s` when rows are in order")
            .and_then(|node| checker.duration(node))
            .map(WatermarksSpec::OutOfOrder),
    };
    let idle_after = table.duration("idle_after");
    let max_ahead = read_max_ahead(table);
    let place = table.place();
    let unnamed = || Placed { value: Text::from("event_time"), place: place.clone() };
    let column = column.or_else(|| expression.as_ref().map(|_| unnamed()))?;
    Some(EventTimeSpec { column, expression, watermarks: watermarks?, idle_after, max_ahead, place })
}

/// `max_ahead: 1h`, `ahead_of: rows`, `on_ahead: drop`.
fn read_max_ahead(table: &Table<'_>) -> Option<MaxAhead> {
    let of = table.choice("ahead_of", &[("clock", AheadOf::Clock), ("rows", AheadOf::Rows)]);
    let then = table.choice(
        "on_ahead",
        &[("drop", OnAhead::Drop), ("dead_letter", OnAhead::DeadLetter), ("clamp", OnAhead::Clamp)],
    );
    let Some(node) = table.optional("max_ahead") else {
        for key in ["ahead_of", "on_ahead"] {
            if let Some(node) = table.optional(key) {
                let message = format!("`{key}` says more of `max_ahead`, which is missing");
                table.checker().mistake_at(node, message);
            }
        }
        return None;
    };
    let by = table.checker().duration(node)?;
    Some(MaxAhead { by, of: of.unwrap_or(AheadOf::Clock), then: then.unwrap_or(OnAhead::Drop) })
}

impl EventTimeSpec {
    /// Whether rows that lie too far ahead go to an output of their own.
    pub(super) fn puts_ahead_aside(&self) -> bool {
        self.max_ahead.is_some_and(|max| max.then == OnAhead::DeadLetter)
    }
}
