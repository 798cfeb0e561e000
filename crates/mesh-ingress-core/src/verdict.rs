//! Whether a response came through the mesh.

use std::fmt;

/// Whether a response came through the mesh: a response extension.
///
/// `mesh-ingress-headers` judges it by the fields that data planes add to responses. It is no proof: an
/// application can write the same fields, and some data planes write none.
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
    /// It bypassed the mesh: in cleartext, without its routing, policy and telemetry.
    Passthrough,
    /// It has no mark that tells the two apart.
    #[default]
    Unknown,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: &'static [Self] = &[Self::Meshed, Self::Passthrough, Self::Unknown];

    /// The name in lower case, for logs and metrics: `meshed`, `passthrough` or `unknown`.
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
    fn each_verdict_has_its_name() {
        let words: Vec<_> = Verdict::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(words, ["meshed", "passthrough", "unknown"]);
        assert_eq!(Verdict::default(), Verdict::Unknown);
    }
}
