//! DNS labels as Kubernetes restricts them, and the error for an invalid name.

use std::fmt;

/// Longest DNS label, in bytes (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// A name, port, domain or authority that could not be parsed.
///
/// The message quotes the input, the invalid part and what was expected:
///
/// ```
/// let err = "Web.default:80".parse::<mesh_ingress_core::ServiceRef>().unwrap_err();
/// assert_eq!(
///     err.to_string(),
///     "invalid service reference \"Web.default:80\": service name \"Web\" has 'W' at position 1, \
///      only lower-case letters, digits and '-' are allowed",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    what: &'static str,
    input: String,
    reason: String,
}

impl ParseError {
    /// An error for `input`, which is no valid `what` for this `reason`.
    pub fn new(what: &'static str, input: &str, reason: impl fmt::Display) -> Self {
        Self {
            what,
            input: input.to_owned(),
            reason: reason.to_string(),
        }
    }

    /// The text that could not be parsed.
    #[must_use]
    pub fn input(&self) -> &str {
        &self.input
    }

    /// Why it could not be parsed.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            input,
            reason,
        } = self;
        write!(f, "invalid {what} {input:?}: {reason}")
    }
}

impl std::error::Error for ParseError {}

/// Which labels are allowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LabelRule {
    /// RFC 1123 §2.1 label, as namespaces and port names are: may begin with a digit.
    Rfc1123,
    /// RFC 1035 label, as Service names are: begins with a letter.
    Rfc1035,
}

/// Checks one label. `what` names it in the reason ("service name").
pub(crate) fn check_label(what: &str, label: &str, rule: LabelRule) -> Result<(), String> {
    if label.is_empty() {
        return Err(format!("the {what} is empty"));
    }
    if let Some((at, c)) = label
        .chars()
        .enumerate()
        .find(|(_, c)| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
    {
        return Err(format!(
            "{what} {label:?} has {c:?} at position {}, only lower-case letters, digits and '-' are allowed",
            at + 1
        ));
    }
    // From here on all characters are ASCII.
    if label.len() > MAX_LABEL {
        return Err(format!(
            "{what} {label:?} has {} characters, a DNS label has at most {MAX_LABEL}",
            label.len()
        ));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(format!("{what} {label:?} begins or ends with '-'"));
    }
    if rule == LabelRule::Rfc1035 && label.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!(
            "{what} {label:?} begins with a digit, Kubernetes wants a letter there (RFC 1035)"
        ));
    }
    Ok(())
}
