//! `${VAR}`, `${VAR:-default}` and `${file:/path}` inside a value; `$$` is a dollar sign.

use super::checker::Environment;

/// What became of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interpolated {
    pub text: String,
    /// What came out of the environment or a file, and how that was written: it is not shown again.
    pub foreign: Vec<Foreign>,
}

/// A value that was put in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Foreign {
    /// With its braces.
    pub written: String,
    pub value: String,
}

/// Puts in what `environment` knows.
///
/// # Errors
/// A sentence for each variable that is not set, file that cannot be read, or brace that is open.
pub(super) fn interpolate(text: &str, environment: &dyn Environment) -> Result<Interpolated, Vec<String>> {
    let mut result = Interpolated { text: String::with_capacity(text.len()), foreign: Vec::new() };
    let mut mistakes = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        result.text.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        if let Some(after) = after.strip_prefix('$') {
            result.text.push('$');
            rest = after;
        } else if let Some(inside) = after.strip_prefix('{') {
            let Some(end) = inside.find('}') else {
                mistakes.push("`${` has no `}`; a dollar sign itself is written `$$`".to_string());
                rest = "";
                continue;
            };
            match look_up(&inside[..end], environment) {
                Ok(Found::Here(default)) => result.text.push_str(default),
                Ok(Found::Elsewhere(value)) => {
                    result.text.push_str(&value);
                    let written = format!("${{{}}}", &inside[..end]);
                    result.foreign.push(Foreign { written, value });
                }
                Err(mistake) => mistakes.push(mistake),
            }
            rest = &inside[end + 1..];
        } else {
            result.text.push('$');
            rest = after;
        }
    }
    result.text.push_str(rest);
    if mistakes.is_empty() { Ok(result) } else { Err(mistakes) }
}

/// What stands for a pair of braces.
enum Found<'t> {
    /// The default, which stands in them.
    Here(&'t str),
    Elsewhere(String),
}

fn look_up<'t>(inside: &'t str, environment: &dyn Environment) -> Result<Found<'t>, String> {
    if let Some(path) = inside.strip_prefix("file:") {
        let content = environment.file(path).map_err(|error| format!("cannot read file {path}: {error}"))?;
        return Ok(Found::Elsewhere(content.trim_end_matches(['\r', '\n']).to_string()));
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(format!(
            "`${{{inside}}}` is not `${{NAME}}`, `${{NAME:-default}}` or `${{file:/path}}`; a dollar sign itself is written `$$`"
        ));
    }
    let value = environment.variable(name).filter(|value| default.is_none() || !value.is_empty());
    value.map(Found::Elsewhere).or(default.map(Found::Here)).ok_or_else(|| {
        format!("environment variable {name} is not set; `${{{name}:-default}}` would give it a default")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Environment for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "A" => Some("1".into()),
                "EMPTY" => Some(String::new()),
                _ => None,
            }
        }

        fn file(&self, path: &str) -> std::io::Result<String> {
            if path == "/s" { Ok("secret\n".into()) } else { Err(std::io::ErrorKind::NotFound.into()) }
        }
    }

    #[test]
    fn variables_defaults_files_and_dollars() {
        let text = |text: &str| interpolate(text, &Fixed).map(|done| done.text);
        assert_eq!(text("x${A}y").unwrap(), "x1y");
        assert_eq!(text("${B:-z}${EMPTY:-e}${A:-no}").unwrap(), "ze1");
        assert_eq!(text("${EMPTY}").unwrap(), "");
        assert_eq!(text("${file:/s}").unwrap(), "secret");
        assert_eq!(text("$$A $5 cost").unwrap(), "$A $5 cost");
        let foreign = interpolate("a ${A} and ${file:/s}", &Fixed).unwrap().foreign;
        let expected = [("${A}", "1"), ("${file:/s}", "secret")];
        assert_eq!(
            foreign.iter().map(|f| (f.written.as_str(), f.value.as_str())).collect::<Vec<_>>(),
            expected
        );
        let own = |text: &str| interpolate(text, &Fixed).unwrap().foreign.is_empty();
        assert!(own("plain") && own("${B:-its own}") && !own("${A:-its own}"));
    }

    #[test]
    fn all_that_is_wrong_is_said() {
        let mistakes = interpolate("${B} ${file:/none} ${no name} ${C", &Fixed).unwrap_err();
        assert_eq!(mistakes.len(), 4, "{mistakes:?}");
        assert!(mistakes[0].contains("variable B is not set"));
    }
}
