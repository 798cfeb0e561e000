//! Field names from settings; a final `*` stands for any rest.

use http::HeaderName;

use crate::InvalidSetting;

#[derive(Clone, Debug)]
pub(crate) struct NamePatterns(Vec<Box<str>>);

impl NamePatterns {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, name: &str) {
        self.0.push(name.to_ascii_lowercase().into());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn check(&self, setting: &'static str) -> Result<(), InvalidSetting> {
        for pattern in &self.0 {
            let name = pattern.strip_suffix('*').unwrap_or(pattern);
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                return Err(InvalidSetting::new(
                    setting,
                    format!("{pattern:?} is no field name"),
                ));
            }
        }
        Ok(())
    }

    /// Whether a lower-case name matches any pattern.
    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.0
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix.as_bytes()),
                None => name == pattern.as_bytes(),
            })
    }
}
