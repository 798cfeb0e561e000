//! Canaries: an Ingress that takes a share of another one's requests.

use mesh_ingress_route::{HeaderMatch, ValueMatch};

use crate::finding::About;
use crate::settings::{Annotations, field, switch};

/// The settings of a canary that are read; all others begin with `canary`, too.
const SETTINGS: &[&str] = &[
    "canary",
    "canary-weight",
    "canary-weight-total",
    "canary-by-header",
    "canary-by-header-value",
    "canary-by-header-pattern",
    "canary-by-cookie",
];

/// Which requests a canary gets.
///
/// ingress-nginx asks in this order: header, cookie, weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Canary {
    /// What sends a request to one of the two for sure; the first that is met counts.
    pub(crate) told: Vec<(HeaderMatch, Goes)>,
    /// Of all others, this share goes to the canary …
    pub(crate) weight: u32,
    /// … and what is left of this to the main backend.
    pub(crate) total: u32,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goes {
    ToCanary,
    ToMain,
}

impl Canary {
    pub(crate) fn is_setting(name: &str) -> bool {
        SETTINGS.contains(&name)
    }

    /// `None` for an Ingress that is no canary.
    pub(crate) fn read(annotations: &Annotations<'_>, about: &mut About<'_>) -> Option<Self> {
        let is_canary = annotations
            .get("canary")
            .map(|value| switch(value, &field("canary"), about));
        // Taking what is not a boolean for "no" would make a main Ingress of a canary, and give it
        // all requests.
        let is_canary = is_canary.map(|value| value.unwrap_or(true));
        if is_canary != Some(true) {
            for name in SETTINGS.iter().skip(1) {
                if annotations.get(name).is_some() {
                    about.warning(&field(name), "it has no effect without canary: \"true\"");
                }
            }
            return None;
        }
        let mut canary = Self {
            total: number("canary-weight-total", 100, annotations, about),
            weight: number("canary-weight", 0, annotations, about),
            ..Self::default()
        };
        if canary.total == 0 {
            about.error(&field("canary-weight-total"), "it is 0, 100 is used");
            canary.total = 100;
        }
        if canary.weight > canary.total {
            let message = format!(
                "it is more than the total of {}: the canary gets everything",
                canary.total
            );
            about.warning(&field("canary-weight"), message);
            canary.weight = canary.total;
        }
        canary.by_header(annotations, about);
        canary.by_cookie(annotations, about);
        if canary.weight == 0 && canary.told.is_empty() {
            about.warning(
                &field("canary"),
                "it has neither weight nor header nor cookie: it gets no requests",
            );
        }
        Some(canary)
    }

    fn by_header(&mut self, annotations: &Annotations<'_>, about: &mut About<'_>) {
        let value = annotations.get("canary-by-header-value");
        let pattern = annotations.get("canary-by-header-pattern");
        let Some(name) = annotations.get("canary-by-header") else {
            for (name, value) in [("value", value), ("pattern", pattern)] {
                if value.is_some() {
                    let field = field(&format!("canary-by-header-{name}"));
                    about.error(&field, "it has no effect without canary-by-header");
                }
            }
            return;
        };
        let exactly = |value: &str| HeaderMatch::new(name, ValueMatch::Exact(value.into()));
        match (value, pattern) {
            (Some(value), _) => {
                if pattern.is_some() {
                    let field = field("canary-by-header-pattern");
                    about.warning(&field, "it has no effect beside canary-by-header-value");
                }
                self.told.push((exactly(value), Goes::ToCanary));
            }
            (None, Some(pattern)) => match value_pattern(pattern) {
                Ok(pattern) => self
                    .told
                    .push((HeaderMatch::new(name, pattern), Goes::ToCanary)),
                Err(reason) => about.error(&field("canary-by-header-pattern"), reason),
            },
            (None, None) => {
                self.told.push((exactly("always"), Goes::ToCanary));
                self.told.push((exactly("never"), Goes::ToMain));
            }
        }
    }

    fn by_cookie(&mut self, annotations: &Annotations<'_>, about: &mut About<'_>) {
        let Some(name) = annotations.get("canary-by-cookie") else {
            return;
        };
        let cookie = |value: &str| {
            // RFC 6265 §5.4: pairs are parted by "; ".
            let pattern = format!("(?:^|;) *{}={value} *(?:;|$)", escape(name));
            value_pattern(&pattern).map(|pattern| HeaderMatch::new("cookie", pattern))
        };
        match (cookie("always"), cookie("never")) {
            (Ok(always), Ok(never)) => {
                self.told.push((always, Goes::ToCanary));
                self.told.push((never, Goes::ToMain));
            }
            (Err(reason), _) | (_, Err(reason)) => about.error(&field("canary-by-cookie"), reason),
        }
    }
}

fn number(name: &str, default: u32, annotations: &Annotations<'_>, about: &mut About<'_>) -> u32 {
    let Some(text) = annotations.get(name) else {
        return default;
    };
    text.trim().parse().unwrap_or_else(|_| {
        let message = format!("{text:?} is not a whole number, {default} is used");
        about.error(&field(name), message);
        default
    })
}

#[cfg(feature = "regex")]
#[allow(clippy::unnecessary_wraps)]
fn value_pattern(pattern: &str) -> Result<ValueMatch, String> {
    Ok(ValueMatch::Regex(pattern.into()))
}

#[cfg(not(feature = "regex"))]
fn value_pattern(_: &str) -> Result<ValueMatch, String> {
    Err("regular expressions are not built in (cargo feature \"regex\"), it has no effect".into())
}

/// Writes a text as the regular expression that matches it.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
