//! Invalid settings.

use std::fmt;

/// An invalid setting, found when the settings are built.
///
/// ```
/// use mesh_ingress_core::InvalidSetting;
///
/// let error = InvalidSetting::new("attempts", "0 is not within 1 to 10");
/// assert_eq!(error.setting(), "attempts");
/// assert_eq!(error.to_string(), "invalid attempts: 0 is not within 1 to 10");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    setting: &'static str,
    reason: String,
}

impl InvalidSetting {
    /// The setting of this name is invalid; `reason` tells what it should be.
    #[must_use]
    pub fn new(setting: &'static str, reason: impl fmt::Display) -> Self {
        Self {
            setting,
            reason: reason.to_string(),
        }
    }

    /// The name of the setting.
    #[must_use]
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {}: {}", self.setting, self.reason)
    }
}

impl std::error::Error for InvalidSetting {}
