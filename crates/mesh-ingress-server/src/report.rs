//! Errors in log lines.

use std::error::Error;
use std::fmt;

/// An error with its causes, in one line.
pub(crate) struct Report<'e>(pub(crate) &'e (dyn Error + 'static));

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
