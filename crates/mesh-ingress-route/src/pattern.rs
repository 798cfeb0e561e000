//! Regular expressions.

use mesh_ingress_core::ParseError;
use regex::{Regex, RegexBuilder, bytes};

/// For paths, as ingress-nginx writes them: `location ~* "^<pattern>"`.
pub(crate) fn of_path(pattern: &str) -> Result<Regex, ParseError> {
    RegexBuilder::new(&format!("^(?:{pattern})"))
        .case_insensitive(true)
        .build()
        .map_err(|error| error_in(pattern, &error))
}

/// For values, which need not be UTF-8.
pub(crate) fn of_value(pattern: &str) -> Result<bytes::Regex, ParseError> {
    bytes::Regex::new(pattern).map_err(|error| error_in(pattern, &error))
}

/// The regex crate draws the pattern over several lines; the last one has the reason.
fn error_in(pattern: &str, error: &regex::Error) -> ParseError {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default().trim();
    let reason = last.strip_prefix("error: ").unwrap_or(last);
    ParseError::new("regular expression", pattern, reason)
}
