//! Reads typed values out of a tree and gathers what is wrong with them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use thalweg_operators::expression::did_you_mean;

use super::interpolation::{Interpolated, interpolate};
use super::{
    FilePath, Guarded, Masks, Mistake, Mistakes, Node, Position, Secret, Table, Text, Value, parse_bytes,
    parse_duration,
};

/// What of the world a configuration may look at.
pub trait Environment {
    /// The environment variable of this name.
    fn variable(&self, name: &str) -> Option<String>;

    /// The content of a file.
    ///
    /// # Errors
    /// The file system's.
    fn file(&self, path: &str) -> std::io::Result<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> std::io::Result<String> {
        std::fs::read_to_string(path)
    }
}

/// Where a value stood, kept beside it for what can be checked only later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Where it begins.
    pub at: Position,
    /// The path of keys.
    pub path: String,
}

impl From<&Node> for Place {
    fn from(node: &Node) -> Self {
        Place { at: node.at, path: node.path.clone() }
    }
}

/// A value and where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed<T> {
    /// The value.
    pub value: T,
    /// Where it stood.
    pub place: Place,
}

/// Gathers mistakes while typed values are read out of a tree. A reader that fails has reported
/// why and answers `None`; the caller goes on, so that all mistakes come at once.
pub struct Checker<'a> {
    environment: &'a dyn Environment,
    directory: PathBuf,
    /// The file as it was written: what stands in it is no secret.
    file: &'a str,
    masks: Masks,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'a> Checker<'a> {
    /// A checker for the text of a file in `directory`; relative paths in the file begin there.
    /// `masks` learn what is not to be shown.
    pub fn new(environment: &'a dyn Environment, directory: &Path, file: &'a str, masks: Masks) -> Self {
        let directory = directory.to_path_buf();
        Checker { environment, directory, file, masks, mistakes: RefCell::new(Vec::new()) }
    }

    /// Reports a mistake at a place. What came from elsewhere is masked in it.
    pub fn mistake(&self, place: &Place, message: impl Into<String>) {
        let message = self.masks.apply(&message.into()).into_owned();
        let mistake = Mistake { at: place.at, path: place.path.clone(), message };
        self.mistakes.borrow_mut().push(mistake);
    }

    /// Reports what somebody else said of a text: a planner, a parser. Of text that came from
    /// elsewhere nothing is repeated, for any part of it may stand in what was said.
    pub fn mistake_in(&self, text: &Placed<Text>, said: impl std::fmt::Display) {
        match text.value.is_foreign() {
            true => {
                let message = format!(
                    "`{}` does not fit here; what is wrong cannot be said without showing what came from elsewhere",
                    text.value
                );
                self.mistake(&text.place, message);
            }
            false => self.mistake(&text.place, said.to_string()),
        }
    }

    /// Reports a mistake at a node.
    pub fn mistake_at(&self, node: &Node, message: impl Into<String>) {
        self.mistake(&Place::from(node), message);
    }

    /// How many mistakes there are so far.
    pub fn count(&self) -> usize {
        self.mistakes.borrow().len()
    }

    /// What was gathered; `Ok` when nothing was wrong.
    ///
    /// # Errors
    /// All mistakes, in the order of the file.
    pub fn finish(self, file: &str) -> Result<(), Mistakes> {
        let mistakes = self.mistakes.into_inner();
        if mistakes.is_empty() { Ok(()) } else { Err(Mistakes::new(file, mistakes)) }
    }

    /// The node as a table of keys.
    pub fn table<'n>(&'n self, node: &'n Node) -> Option<Table<'n>> {
        match &node.value {
            Value::Table(entries) => Some(Table::new(self, node, entries)),
            _ => {
                self.mistake_at(node, format!("expected a table of keys, found {}", self.shown(node)));
                None
            }
        }
    }

    /// The node as a list; a single value is a list of one.
    pub fn list<'n>(&self, node: &'n Node) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            Value::Text { .. } => Some(std::slice::from_ref(node)),
            _ => {
                self.mistake_at(node, format!("expected a list, found {}", self.shown(node)));
                None
            }
        }
    }

    /// The node as text, `expected` being what it is in words ("a topic's name").
    pub fn text(&self, node: &Node, expected: &str) -> Option<Text> {
        let done = self.interpolated(node, expected)?;
        let written = match &node.value {
            Value::Text { text, .. } => text.as_str(),
            _ => "",
        };
        self.hide(&done);
        let is_foreign = !done.foreign.is_empty();
        let shown = if is_foreign { written.to_string() } else { done.text.clone() };
        Some(Guarded::new(done.text, shown, is_foreign))
    }

    fn hide(&self, done: &Interpolated) {
        for foreign in &done.foreign {
            self.masks.hide(&foreign.value, &foreign.written, self.file);
        }
    }

    fn interpolated(&self, node: &Node, expected: &str) -> Option<Interpolated> {
        match &node.value {
            Value::Text { text, .. } => match interpolate(text, self.environment) {
                Ok(done) => Some(done),
                Err(mistakes) => {
                    for mistake in mistakes {
                        self.mistake_at(node, mistake);
                    }
                    None
                }
            },
            _ => {
                self.mistake_at(node, format!("expected {expected}, found {}", self.shown(node)));
                None
            }
        }
    }

    /// The node as text that is not empty.
    pub fn name(&self, node: &Node, expected: &str) -> Option<Text> {
        let text = self.text(node, expected)?;
        if text.reveal().trim().is_empty() {
            self.mistake_at(node, format!("expected {expected}, found empty text"));
            return None;
        }
        Some(text)
    }

    /// The node as text that nobody may see.
    pub fn secret(&self, node: &Node) -> Option<Secret> {
        match &node.value {
            Value::Text { .. } => {
                let done = self.interpolated(node, "a secret")?;
                self.hide(&done);
                Some(Secret::new(done.text))
            }
            _ => {
                self.mistake_at(node, format!("expected a secret as text, found {}", node.kind()));
                None
            }
        }
    }

    /// The node as whatever `read` makes of its text: a number, a word of a few. A message of `read`
    /// is shown with the text as it was written.
    pub fn parsed<T>(
        &self,
        node: &Node,
        expected: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let done = self.interpolated(node, expected)?;
        match read(done.text.trim()) {
            Ok(value) => Some(value),
            Err(message) => {
                // A suggestion comes last; of what came from elsewhere it would show what that is like.
                let (message, hint) = match message.split_once("; did you mean") {
                    Some((message, hint)) if done.foreign.is_empty() => {
                        (message, format!("; did you mean{hint}"))
                    }
                    Some((message, _)) => (message, String::new()),
                    None => (message.as_str(), String::new()),
                };
                self.mistake_at(node, format!("{message}, found {}{hint}", self.shown(node)));
                None
            }
        }
    }

    /// The node as a whole number within `range`.
    pub fn integer(&self, node: &Node, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let expected = match (*range.start(), *range.end()) {
            (first, i64::MAX) => format!("expected a whole number of at least {first}"),
            (first, last) => format!("expected a whole number from {first} to {last}"),
        };
        self.parsed(node, "a whole number", |text| {
            let number: i64 = text.replace('_', "").parse().map_err(|_| expected.clone())?;
            if range.contains(&number) { Ok(number) } else { Err(expected.clone()) }
        })
    }

    /// The node as `true` or `false`.
    pub fn boolean(&self, node: &Node) -> Option<bool> {
        self.parsed(node, "`true` or `false`", |text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("expected `true` or `false`".to_string()),
        })
    }

    /// The node as a duration in microseconds.
    pub fn duration(&self, node: &Node) -> Option<i64> {
        self.parsed(node, "a duration such as `10s`", parse_duration)
    }

    /// The node as a size in bytes.
    pub fn bytes(&self, node: &Node) -> Option<u64> {
        self.parsed(node, "a size such as `512MiB`", parse_bytes)
    }

    /// The node as one of a few words.
    pub fn choice<T: Clone>(&self, node: &Node, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let expected = format!("expected {}", one_of(&names));
        let done = self.interpolated(node, expected.trim_start_matches("expected "))?;
        let text = done.text.trim();
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return Some(choice.clone());
        }
        // None for a word that came from elsewhere: it would show what the word is close to.
        let near = done.foreign.is_empty().then(|| did_you_mean(text, names.iter().copied())).flatten();
        let hint = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        self.mistake_at(node, format!("{expected}, found {}{hint}", self.shown(node)));
        None
    }

    /// The node as a path; a relative one begins at the configuration's own directory.
    pub fn path(&self, node: &Node) -> Option<FilePath> {
        let text = self.name(node, "a path")?;
        Some(text.map(|text| self.beside(text), |path| path.display().to_string()))
    }

    /// A path as the configuration's own directory sees it.
    pub fn beside(&self, path: &str) -> PathBuf {
        if Path::new(path).is_absolute() { PathBuf::from(path) } else { self.directory.join(path) }
    }

    /// The node for people, as it was written: what came out of the environment stays hidden.
    fn shown(&self, node: &Node) -> String {
        const SHOWN_CHARACTERS_MAX: usize = 60;
        let last_key = node.path.rsplit('.').next().unwrap_or_default();
        match &node.value {
            Value::Text { .. } if is_secret_key(last_key) => "a value".to_string(),
            Value::Text { text, .. } => {
                let cut: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
                let dots = if cut.len() < text.len() { "..." } else { "" };
                // What stands before an `@` may be somebody's password.
                match cut.rsplit_once('@') {
                    Some((_, host)) => format!("`***@{host}{dots}`"),
                    None => format!("`{cut}{dots}`"),
                }
            }
            _ => node.kind().to_string(),
        }
    }
}

/// Whether what stands under this key is secret by its name.
pub(super) fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "token", "sas", "credential", "private_key", "api_key"].iter().any(|word| {
        key.split(['.', '_', '-']).any(|part| part == *word) || (word.contains('_') && key.contains(word))
    })
}

/// `a, b or c`, each in backticks.
pub(super) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "nothing".to_string(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_name_secrets_are_known() {
        for key in ["password", "sas", "sasl.password", "ssl.key.password", "bearer_token", "client_secret"] {
            assert!(is_secret_key(key), "{key}");
        }
        for key in ["topic", "sasl.mechanism", "passwords_are_not_here", "sasl", "tokens_per_second"] {
            assert!(!is_secret_key(key), "{key}");
        }
    }
}
