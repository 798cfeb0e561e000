//! Path rules, and dot segments in the path of a request.

use std::fmt;

use mesh_ingress_core::ParseError;

/// How a route matches the path of a request.
///
/// Paths are compared as sent, byte by byte and case-sensitive: `%2F` is not a slash and `%61` is not
/// an `a`. The matched bytes are forwarded, so that no two decoders can disagree about the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PathMatch {
    /// The whole path, trailing slash included (Ingress and Gateway API `Exact`).
    Exact(Box<str>),
    /// Whole elements from the beginning (Ingress `Prefix`, Gateway API `PathPrefix`): `/foo`
    /// matches `/foo`, `/foo/` and `/foo/bar`, not `/foobar`. A slash at the end of the rule does
    /// not count.
    Prefix(Box<str>),
    /// A plain text prefix, like nginx's `location /foo`: `/foo` also matches `/foobar` (as
    /// `ImplementationSpecific` in ingress-nginx).
    StringPrefix(Box<str>),
    /// A regular expression, matched from the beginning of the path and ignoring case, as
    /// ingress-nginx does (`location ~* "^…"`). Not anchored at the end.
    #[cfg(feature = "regex")]
    Regex(Box<str>),
}

/// A path rule in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum PathRule {
    Exact(Box<str>),
    /// Without slash at the end: the root is the empty text.
    Prefix(Box<str>),
    StringPrefix(Box<str>),
    #[cfg(feature = "regex")]
    Regex(Box<str>),
}

impl PathMatch {
    /// The path or pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::StringPrefix(text) => text,
            #[cfg(feature = "regex")]
            Self::Regex(text) => text,
        }
    }

    pub(crate) fn compile(&self) -> Result<PathRule, ParseError> {
        Ok(match self {
            Self::Exact(text) => PathRule::Exact(checked(text)?.into()),
            Self::Prefix(text) => {
                let text = checked(text)?;
                PathRule::Prefix(text.strip_suffix('/').unwrap_or(text).into())
            }
            Self::StringPrefix(text) => PathRule::StringPrefix(checked(text)?.into()),
            #[cfg(feature = "regex")]
            Self::Regex(text) => {
                crate::pattern::of_path(text)?;
                PathRule::Regex(text.clone())
            }
        })
    }
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

/// As in a [route's text form](crate::Route#text-form): `/foo`, `=/foo`, `/foo*`.
impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "={text}"),
            Self::Prefix(text) => f.write_str(text),
            Self::StringPrefix(text) => write!(f, "{text}*"),
            #[cfg(feature = "regex")]
            Self::Regex(text) => write!(f, "~{text}"),
        }
    }
}

/// Refuses a rule that no path on the wire can match.
fn checked(text: &str) -> Result<&str, ParseError> {
    let error = |reason: String| Err(ParseError::new("path", text, reason));
    if !text.starts_with('/') {
        return error(match text {
            "" => "it is empty, expected / for every path".into(),
            _ => "it does not begin with '/'".into(),
        });
    }
    // RFC 3986 §3.3: a path ends at '?' or '#', and is ASCII without controls and spaces.
    if let Some((at, c)) = text
        .char_indices()
        .find(|(_, c)| !c.is_ascii_graphic() || matches!(c, '?' | '#'))
    {
        return error(match c {
            '?' => format!("'?' at position {}: match the query with .query(…)", at + 1),
            '#' => format!("'#' at position {}: clients do not send fragments", at + 1),
            _ => format!(
                "{c:?} at position {} must be percent-encoded, as clients send it",
                at + 1
            ),
        });
    }
    if has_dot_segments(text) {
        return error(
            "it has dot segments, which no request path has by the time it is matched".into(),
        );
    }
    Ok(text)
}

/// Whether a path has a dot segment, in any spelling that a server behind the gateway may understand.
///
/// A gateway and the server behind it must agree on the path of a request. Otherwise
/// `/public/..%2Fadmin` matches `/public` here and is served as `/admin` there. RFC 3986 §3.3 has
/// two dot segments, `.` and `..`; this finds them also
///
/// * with dots spelled `%2e` (RFC 3986 §6.2.2.2: equivalent),
/// * between `%2F`, `\` or `%5C`, which many servers treat as slashes,
/// * with parameters (`..;x`), which servlet containers strip before they resolve.
///
/// Legitimate clients do not send such paths: they resolve dot segments first (RFC 3986 §5.2.4). Dots
/// within an element (`/a..b`, `/.well-known`) are fine.
///
/// ```
/// use mesh_ingress_route::path::has_dot_segments;
///
/// assert!(has_dot_segments("/public/../admin"));
/// assert!(has_dot_segments("/public/%2E%2e%2fadmin"));
/// assert!(!has_dot_segments("/.well-known/acme-challenge/..x"));
/// ```
#[must_use]
pub fn has_dot_segments(path: &str) -> bool {
    let mut rest = path.as_bytes();
    // The number of dots in the current element so far, if it has nothing else.
    let mut dots = Some(0_u8);
    let mut found = false;
    while let Some((byte, after)) = next_byte(rest) {
        rest = after;
        match byte {
            b'/' | b'\\' => {
                if found || is_dot_segment(dots) {
                    return true;
                }
                dots = Some(0);
            }
            b';' => {
                found = found || is_dot_segment(dots);
                dots = None;
            }
            b'.' => dots = dots.and_then(|n| (n < 2).then_some(n + 1)),
            _ => dots = None,
        }
    }
    found || is_dot_segment(dots)
}

fn is_dot_segment(dots: Option<u8>) -> bool {
    matches!(dots, Some(1 | 2))
}

/// The first byte, decoded if it is percent-encoded, and what follows it.
fn next_byte(bytes: &[u8]) -> Option<(u8, &[u8])> {
    match bytes {
        [b'%', high, low, rest @ ..] => match (hex(*high), hex(*low)) {
            (Some(high), Some(low)) => Some((high << 4 | low, rest)),
            _ => Some((b'%', bytes.get(1..)?)),
        },
        [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_segments_in_every_spelling() {
        for path in [
            "/.",
            "/..",
            "/./",
            "/../",
            "/a/.",
            "/a/..",
            "/a/./b",
            "/a/../b",
            "/%2e",
            "/%2E%2e",
            "/.%2e/",
            "/%2e./x",
            "/a%2f..%2fb",
            "/a\\..\\b",
            "/a%5c..",
            "/..;/x",
            "/..;a=b",
            "/.;",
            "/%2e%2e%3b/x",
            "/a%2F..",
            "//..",
            "/..//",
        ] {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in [
            "/",
            "",
            "*",
            "/a",
            "/...",
            "/a.",
            "/.a",
            "/..a",
            "/a..b",
            "/.well-known/x",
            "/%2f",
            "/%2",
            "/%",
            "/%zz..",
            "/a;..",
            "/a;v=1.2/b",
            "/%252e%252e/",
            "/%2e%2e%2e",
            "//",
            "/a/..%00",
        ] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }

    #[test]
    fn rules_that_no_request_can_match_are_refused() {
        for (text, reason) in [
            ("", "expected / for every path"),
            ("foo", "does not begin with '/'"),
            ("*", "does not begin with '/'"),
            ("/a b", "' ' at position 3 must be percent-encoded"),
            ("/é", "'é' at position 2 must be percent-encoded"),
            ("/a?b=c", "'?' at position 3: match the query"),
            ("/a#b", "'#' at position 3"),
            ("/a/../b", "dot segments"),
            ("/a\n", "position 3"),
        ] {
            for rule in [
                PathMatch::Exact(text.into()),
                PathMatch::Prefix(text.into()),
                PathMatch::StringPrefix(text.into()),
            ] {
                let error = rule.compile().unwrap_err().to_string();
                assert!(error.contains(reason), "{error}");
            }
        }
    }

    #[test]
    fn trailing_slash_matters_in_exact_paths_only() {
        let compile = |rule: PathMatch| rule.compile().unwrap();
        assert_eq!(
            compile(PathMatch::Prefix("/a/".into())),
            compile(PathMatch::Prefix("/a".into()))
        );
        assert_ne!(
            compile(PathMatch::Exact("/a/".into())),
            compile(PathMatch::Exact("/a".into()))
        );
    }
}
