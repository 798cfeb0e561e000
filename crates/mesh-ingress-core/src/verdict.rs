//! Whether the mesh took part.

use std::fmt;

/// What a response tells about the way it came: a response extension.
///
/// Read from the fields that data planes leave on responses, by `mesh-ingress-headers`. It is
/// circumstantial: an application can write the same fields, and some data planes write none.
///
/// ```
/// use mesh_ingress_core::Verdict;
///
/// let mut response = http::Response::new(());
/// response.extensions_mut().insert(Verdict::Meshed);
/// assert_eq!(Verdict::Meshed.to_string(), "meshed");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It came through the mesh.
    Meshed,
    /// It came past the mesh: in cleartext, without its routing, policy and telemetry.
    Passthrough,
    /// It bears no mark that only one of the two ways leaves.
    #[default]
    Unknown,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: &'static [Self] = &[Self::Meshed, Self::Passthrough, Self::Unknown];

    /// One lower-case word, for logs and metrics: `meshed`, `passthrough` or `unknown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Meshed => "meshed",
            Self::Passthrough => "passthrough",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_has_its_word() {
        let words: Vec<_> = Verdict::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["meshed", "passthrough", "unknown"]);
        assert_eq!(Verdict::default(), Verdict::Unknown);
    }
}
