//! The error for a text that cannot be read.

use serde_saphyr::Error;

use crate::yaml::one_line;

/// The text is no YAML or JSON.
///
/// A fault within a well-formed document is a [`Finding`](crate::Finding) instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The text is not well-formed. None of it is used: the text after the fault is ambiguous, and half
    /// a route table is worse than the old one.
    #[error("line {line}, column {column}: {reason}")]
    #[non_exhaustive]
    Syntax {
        /// The line, counted from 1; 0 if it is not known.
        line: u64,
        /// The column, counted from 1; 0 if it is not known.
        column: u64,
        /// The reason.
        reason: String,
    },
}

impl ImportError {
    pub(crate) fn syntax(error: &Error) -> Self {
        let location = error.without_snippet().location();
        Self::Syntax {
            line: location.map_or(0, |location| location.line()),
            column: location.map_or(0, |location| location.column()),
            reason: one_line(error),
        }
    }
}
