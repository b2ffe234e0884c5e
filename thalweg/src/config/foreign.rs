//! What came out of the environment or a file: it is used, and never shown.
//!
//! Two lines of defence. A value that has such text in it is [`Guarded`]: what people see is how it
//! was written, `${TOPIC}`. And whatever leaves the process as text for people (mistakes, `explain`,
//! logs, errors) passes through [`Masks`], for what is made of the value speaks with other voices: a
//! broker's client, a file system, SQL.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

/// A value and how it is shown: as it was written when something was put into it.
#[derive(Clone)]
pub struct Guarded<T> {
    value: T,
    shown: String,
    is_foreign: bool,
}

/// Text of a configuration.
pub type Text = Guarded<String>;
/// A path of a configuration.
pub type FilePath = Guarded<PathBuf>;

impl<T> Guarded<T> {
    /// A value that is shown as `shown`; `is_foreign` when something was put into it.
    pub(super) fn new(value: T, shown: String, is_foreign: bool) -> Self {
        Guarded { value, shown, is_foreign }
    }

    /// The value, for what is made of it. It goes into no text for people.
    pub fn reveal(&self) -> &T {
        &self.value
    }

    /// Whether something was put into it.
    pub fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// Another value that is made of this one, shown like it when something was put into it.
    pub fn map<U>(&self, make: impl FnOnce(&T) -> U, show: impl FnOnce(&U) -> String) -> Guarded<U> {
        let value = make(&self.value);
        let shown = if self.is_foreign { self.shown.clone() } else { show(&value) };
        Guarded { value, shown, is_foreign: self.is_foreign }
    }
}

impl<T> Guarded<T> {
    /// Shown as `show` says of what is shown.
    #[must_use]
    pub fn shown_as(mut self, show: impl FnOnce(&str) -> String) -> Self {
        self.shown = show(&self.shown);
        self
    }
}

impl Text {
    /// The text, for what is made of it.
    pub fn as_str(&self) -> &str {
        &self.value
    }
}

impl From<&str> for Text {
    /// Text of the program itself, such as a default.
    fn from(text: &str) -> Text {
        Guarded::new(text.to_string(), text.to_string(), false)
    }
}

impl From<PathBuf> for FilePath {
    /// A path of the program itself.
    fn from(path: PathBuf) -> FilePath {
        let shown = path.display().to_string();
        Guarded::new(path, shown, false)
    }
}

impl<T: PartialEq> PartialEq for Guarded<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Guarded<T> {}

impl<T> fmt::Display for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl<T> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.shown)
    }
}

/// Puts what was written in the place of what it stood for, in any text. All clones are one.
#[derive(Clone, Default)]
pub struct Masks(Arc<RwLock<Vec<Mask>>>);

struct Mask {
    /// In lower case: others may change the case.
    hidden: String,
    /// What stands in its place.
    written: String,
}

impl Masks {
    /// Shorter texts are everywhere; nobody could read a log without them.
    const HIDDEN_BYTES_MIN: usize = 6;

    /// From now on `value`, which came out of `written`, is hidden: as it is, as a quoted text shows
    /// it, and in its parts, for an error names a host of a list, or a word of an expression. What
    /// stands in `file`, where everybody reads it, is not hidden.
    pub(super) fn hide(&self, value: &str, written: &str, file: &str) {
        let file = file.to_ascii_lowercase();
        let quoted = format!("{value:?}");
        let quoted = quoted.trim_matches('"');
        let bare_url = value.split(['?', '#']).next().unwrap_or_default();
        let parts = value.split(|c: char| c.is_whitespace() || ",;/@'\"`()[]{}<>=|&?".contains(c));
        let hosts = parts.clone().filter_map(|part| part.rsplit_once(':')).map(|(host, _)| host);
        let texts = [value.trim(), quoted, bare_url].into_iter().chain(parts).chain(hosts);
        let mut masks = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for text in texts {
            let hidden = text.to_ascii_lowercase();
            let is_new = !masks.iter().any(|mask| mask.hidden == hidden);
            if hidden.len() >= Self::HIDDEN_BYTES_MIN && is_new && !file.contains(&hidden) {
                masks.push(Mask { hidden, written: written.to_string() });
            }
        }
        // What is part of another one comes after it.
        masks.sort_by_key(|mask| std::cmp::Reverse(mask.hidden.len()));
    }

    /// `text` with what was written in the place of all that is hidden.
    pub fn apply<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let masks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut shown = Cow::Borrowed(text);
        for mask in masks.iter() {
            if let Some(masked) = mask.apply(&shown) {
                shown = Cow::Owned(masked);
            }
        }
        shown
    }
}

impl Mask {
    /// `None` when there is nothing to hide.
    fn apply(&self, text: &str) -> Option<String> {
        // Of the same length: only ASCII letters change.
        let lower = text.to_ascii_lowercase();
        let mut shown = String::new();
        let mut done = 0;
        for (at, _) in lower.match_indices(&self.hidden) {
            shown.push_str(&text[done..at]);
            shown.push_str(&self.written);
            done = at + self.hidden.len();
        }
        (done > 0).then(|| shown + &text[done..])
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f14_what_was_put_in_is_shown_as_it_was_written_and_the_rest_as_it_is() {
        let foreign: Text = Guarded::new("hunter2".into(), "${PASSWORD}".into(), true);
        assert_eq!(format!("{foreign} {foreign:?}"), "${PASSWORD} \"${PASSWORD}\"");
        let path = foreign.map(|text| PathBuf::from("/jobs").join(text), |path| path.display().to_string());
        assert_eq!(
            (path.to_string().as_str(), path.reveal().to_str()),
            ("${PASSWORD}", Some("/jobs/hunter2"))
        );
        let plain = Text::from("out")
            .map(|text| PathBuf::from("/jobs").join(text), |path| path.display().to_string());
        assert_eq!(plain.to_string(), "/jobs/out");
    }

    #[test]
    fn f14_masks_hide_a_value_and_its_parts_whatever_their_case_but_not_what_the_file_says() {
        let masks = Masks::default();
        masks.hide("kafka-one.internal:9092,kafka-two.internal:9092", "${BROKERS}", "sources: flights");
        masks.hide("user = 'Hush Canary'\nand flights > 5", "${WHERE}", "sources: flights");
        let said =
            "no host KAFKA-TWO.internal; no column canary in flights: user = 'Hush Canary'\\nand flights > 5";
        assert_eq!(masks.apply(said), "no host ${BROKERS}; no column ${WHERE} in flights: ${WHERE}");
        assert_eq!(masks.apply("user 5"), "user 5", "short ones are everywhere");
    }
}
