//! A table of keys that is being read: it knows which keys were asked for, so that the others
//! are unknown ones.

use std::cell::RefCell;

use thalweg_operators::expression::did_you_mean;

use super::checker::one_of;
use super::{Checker, Entry, FilePath, Node, Place, Secret, Text, Value};

/// A table of keys that is being read. Ask for every key that there is, then call
/// [`Table::finish`], which reports the keys that nobody asked for.
pub struct Table<'a> {
    checker: &'a Checker<'a>,
    node: &'a Node,
    entries: &'a [Entry],
    known: RefCell<Vec<String>>,
}

impl<'a> Table<'a> {
    pub(super) fn new(checker: &'a Checker<'a>, node: &'a Node, entries: &'a [Entry]) -> Self {
        Table { checker, node, entries, known: RefCell::new(Vec::new()) }
    }

    /// Who gathers the mistakes.
    pub fn checker(&self) -> &'a Checker<'a> {
        self.checker
    }

    /// Where the table is.
    pub fn place(&self) -> Place {
        Place::from(self.node)
    }

    /// All entries, for a table whose keys are the user's own names.
    pub fn entries(&self) -> &'a [Entry] {
        self.entries
    }

    /// Whether a key is there, with or without a value. It becomes a known one.
    pub fn has(&self, key: &str) -> bool {
        self.known.borrow_mut().push(key.to_string());
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// What the key `kind` says. Without a kind nobody can say which other keys are unknown, so all
    /// are taken for known ones.
    pub fn kind<T: Clone>(&self, kinds: &[(&str, T)]) -> Option<T> {
        self.word("kind", kinds)
    }

    /// What a key says that decides which other keys there are; see [`Table::kind`].
    pub fn word<T: Clone>(&self, key: &str, kinds: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
        let kind = self.required(key, &one_of(&names)).and_then(|node| self.checker.choice(node, kinds));
        if kind.is_none() {
            self.known.borrow_mut().extend(self.entries.iter().map(|entry| entry.key.clone()));
        }
        kind
    }

    /// The value of a key that may be missing. A key without a value is a mistake.
    pub fn optional(&self, key: &str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key.to_string());
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        if entry.value.value == Value::Nothing {
            self.checker.mistake_at(&entry.value, "this key has no value");
            return None;
        }
        Some(&entry.value)
    }

    /// The value of a key that must be there; `expected` says what it is ("a topic's name").
    pub fn required(&self, key: &str, expected: &str) -> Option<&'a Node> {
        if !self.has(key) {
            self.missing(key, expected);
            return None;
        }
        self.optional(key)
    }

    /// Reports that a key is missing.
    pub fn missing(&self, key: &str, expected: &str) {
        // A slip in this very key is reported once, as an unknown key with its suggestion.
        let slip = self.entries.iter().any(|entry| did_you_mean(&entry.key, [key]).is_some());
        if !slip || self.entries.iter().any(|entry| entry.key == key) {
            self.checker.mistake(&self.place(), format!("`{key}` is missing; expected {expected}"));
        }
    }

    /// Optional text.
    pub fn text(&self, key: &str, expected: &str) -> Option<Text> {
        self.checker.name(self.optional(key)?, expected)
    }

    /// Text that must be there.
    pub fn required_text(&self, key: &str, expected: &str) -> Option<Text> {
        self.checker.name(self.required(key, expected)?, expected)
    }

    /// Optional whole number.
    pub fn integer(&self, key: &str, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        self.checker.integer(self.optional(key)?, range)
    }

    /// Optional `true` or `false`.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        self.checker.boolean(self.optional(key)?)
    }

    /// Optional duration, in microseconds.
    pub fn duration(&self, key: &str) -> Option<i64> {
        self.checker.duration(self.optional(key)?)
    }

    /// Optional size, in bytes.
    pub fn bytes(&self, key: &str) -> Option<u64> {
        self.checker.bytes(self.optional(key)?)
    }

    /// Optional choice among a few words.
    pub fn choice<T: Clone>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        self.checker.choice(self.optional(key)?, choices)
    }

    /// Optional path.
    pub fn path(&self, key: &str) -> Option<FilePath> {
        self.checker.path(self.optional(key)?)
    }

    /// Optional secret.
    pub fn secret(&self, key: &str) -> Option<Secret> {
        self.checker.secret(self.optional(key)?)
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(self) {
        let mut known = self.known.into_inner();
        known.sort();
        known.dedup();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        for entry in self.entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
            // A key that is there already cannot have been meant.
            let free = known.iter().copied().filter(|key| !self.entries.iter().any(|e| e.key == *key));
            let hint = match did_you_mean(&entry.key, free) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected {}", one_of(&known)),
            };
            let place = Place { at: entry.key_at, path: entry.value.path.clone() };
            self.checker.mistake(&place, format!("unknown key; {hint}"));
        }
    }
}
