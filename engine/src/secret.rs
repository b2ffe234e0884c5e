//! Text that is never shown. It knows nobody, and has no way to a text but [`Secret::reveal`], which
//! is called where a client is configured and nowhere else.

use std::collections::BTreeSet;

/// A password, a key, a token, the value of a client's setting.
///
/// `Debug` shows `***`, so that what holds one may be printed. There is no `Display` and nothing
/// that serialises it:
///
/// ```compile_fail
/// let shown = format!("{}", thalweg_engine::Secret::new("hunter2"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the client that needs it. It goes into no log, error, label or state.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Replaces secrets in what somebody else said: a client's error, a line of its log.
///
/// What the client was given are texts that we do not read, so what it says of them is not ours to
/// choose. `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub struct Redaction(Vec<Secret>);

impl Redaction {
    /// A value of fewer bytes is replaced only where it stands alone: `1` in `broker 1`, not in `10`.
    const ANYWHERE_BYTES_MIN: usize = 4;

    /// Replaces these, and the words of each: a client that cannot read a value to its end repeats the
    /// rest of it.
    pub fn new(secrets: impl IntoIterator<Item = Secret>) -> Redaction {
        let mut texts = BTreeSet::new();
        for Secret(secret) in secrets {
            let words = secret.split(|c: char| c.is_whitespace() || ",;='\"".contains(c));
            texts.extend(words.chain([secret.as_str()]).filter(|text| !text.is_empty()).map(String::from));
        }
        let mut secrets: Vec<Secret> = texts.into_iter().map(Secret).collect();
        // What is part of another one comes after it.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.0.len()));
        Redaction(secrets)
    }

    /// `text` with `***` for each secret.
    pub fn apply(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for Secret(secret) in &self.0 {
            if secret.len() >= Self::ANYWHERE_BYTES_MIN {
                shown = shown.replace(secret.as_str(), "***");
            } else {
                shown = replace_words(&shown, secret);
            }
        }
        shown
    }
}

/// Replaces `word` where neither a letter nor a digit stands beside it.
fn replace_words(text: &str, word: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let preceding = before.chars().next_back().or_else(|| shown.chars().next_back());
        let beside = [preceding, after.chars().next()];
        shown.push_str(before);
        let alone = !beside.into_iter().flatten().any(char::is_alphanumeric);
        shown.push_str(if alone { "***" } else { word });
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f14_a_secret_is_stars_in_whatever_holds_it() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret:?} {:?} {:?}", Some(&secret), Redaction::new([secret.clone()])),
            "*** Some(***) Redaction([***])"
        );
        assert_eq!(secret.reveal(), "hunter2");
    }

    #[test]
    fn f14_secrets_are_replaced_in_what_others_say_and_short_ones_where_they_stand_alone() {
        let redaction = Redaction::new(["SCRAM", "SCRAM-X", "all", "1", ""].map(Secret::new));
        let said =
            "No provider for SASL mechanism SCRAM-X: all of SCRAM_ at 127.0.0.1:1 and 10 allow acks=all";
        let shown =
            "No provider for SASL mechanism ***: *** of ***_ at 127.0.0.***:*** and 10 allow acks=***";
        assert_eq!(redaction.apply(said), shown);
        assert_eq!(Redaction::default().apply("as it is"), "as it is");
        let oauth = Redaction::new([Secret::new("principal=hunter2 scop swordfish")]);
        let said = "unrecognized sasl.oauthbearer.config beginning at: scop swordfish";
        assert_eq!(oauth.apply(said), "unrecognized sasl.oauthbearer.config beginning at: *** ***");
    }
}
