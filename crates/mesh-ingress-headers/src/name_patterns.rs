//! Field names from settings, with a `*` at the end for any rest.

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
        for own in &self.0 {
            let name = own.strip_suffix('*').unwrap_or(own);
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                return Err(InvalidSetting::new(
                    setting,
                    format!("{own:?} is no field name"),
                ));
            }
        }
        Ok(())
    }

    /// Whether a lower-case name is among them.
    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.0.iter().any(|own| match own.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix.as_bytes()),
            None => name == own.as_bytes(),
        })
    }
}
