//! From the SDK's errors to the engine's, without what must not be read: the SDK and its HTTP
//! client name the URL of a failed request, and a SAS stands in a URL's query.

use azure_core::error::ErrorKind;
use azure_core::http::StatusCode;

use crate::Error;

/// The engine's error for a failed call: of the store, and retryable when another try can help.
pub(super) fn classify(what: &str, path: &str, error: &azure_core::Error) -> Error {
    let said = Error::store(format!("{what} {path}: {}", describe(error)));
    if can_retry(error) { said } else { said.permanent() }
}

fn can_retry(error: &azure_core::Error) -> bool {
    match error.kind() {
        ErrorKind::HttpResponse { status, .. } => {
            matches!(
                status,
                StatusCode::RequestTimeout
                    | StatusCode::TooManyRequests
                    | StatusCode::InternalServerError
                    | StatusCode::BadGateway
                    | StatusCode::ServiceUnavailable
                    | StatusCode::GatewayTimeout
            )
        }
        // A token may be refused for a moment while an identity is being set up.
        ErrorKind::Connection | ErrorKind::Io | ErrorKind::Credential => true,
        _ => false,
    }
}

/// The service's own code, such as `BlobNotFound`.
pub(super) fn service_code(error: &azure_core::Error) -> Option<&str> {
    match error.kind() {
        ErrorKind::HttpResponse { error_code, .. } => error_code.as_deref(),
        _ => None,
    }
}

/// An error and its causes on one line, queries of URLs left out.
pub(super) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut said = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let message = error.to_string();
        let message =
            message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        if !said.ends_with(&message) {
            said.push_str(if said.is_empty() { "" } else { ": " });
            said.push_str(&message);
        }
        cause = error.source();
    }
    without_queries(&said)
}

/// Cuts what follows a `?` up to the next character that ends a URL in prose.
fn without_queries(said: &str) -> String {
    let ends_url = |c: char| c.is_whitespace() || matches!(c, ')' | '\'' | '"' | '>' | '`');
    let mut kept = String::with_capacity(said.len());
    let mut rest = said;
    while let Some(start) = rest.find('?') {
        let (before, query) = rest.split_at(start);
        kept.push_str(before);
        let end = query.find(ends_url).unwrap_or(query.len());
        kept.push_str(if end > 1 { "?..." } else { "?" });
        rest = &query[end..];
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_url_never_gets_through() {
        let inner =
            std::io::Error::other("error sending request for url (http://h:1/c/b?sv=1&sig=SECRET%3D)");
        let error =
            azure_core::Error::with_error(ErrorKind::Io, inner, "failed to execute `reqwest` request");
        let said = classify("reading", "job/log/1", &error).to_string();
        assert!(!said.contains("SECRET") && !said.contains("sv=1"), "{said}");
        assert!(said.contains("reading job/log/1") && said.contains("(http://h:1/c/b?...)"), "{said}");
        assert_eq!(without_queries("why? because"), "why? because");
    }
}
