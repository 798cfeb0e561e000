//! Canaries: Ingresses that take a share of another Ingress's requests.

use mesh_ingress_route::{HeaderMatch, ValueMatch};

use crate::finding::ObjectFindings;
use crate::settings::{Annotations, field, switch};

/// The supported annotations of a canary.
const SETTINGS: &[&str] = &[
    "canary",
    "canary-weight",
    "canary-weight-total",
    "canary-by-header",
    "canary-by-header-value",
    "canary-by-header-pattern",
    "canary-by-cookie",
];

/// The requests that a canary takes, in the order of ingress-nginx: by header, by cookie, by weight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Canary {
    /// Conditions that decide the destination; the first one met wins.
    pub(crate) rules: Vec<(HeaderMatch, Destination)>,
    /// The canary's share of the other requests,
    pub(crate) weight: u32,
    /// of this total; the main backend takes the rest.
    pub(crate) total: u32,
}

/// The destination of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    Canary,
    Main,
}

impl Canary {
    pub(crate) fn is_setting(name: &str) -> bool {
        SETTINGS.contains(&name)
    }

    /// `None` for an Ingress that is no canary.
    pub(crate) fn read(
        annotations: &Annotations<'_>,
        report: &mut ObjectFindings<'_>,
    ) -> Option<Self> {
        let is_canary = annotations
            .get("canary")
            .map(|value| switch(value, &field("canary"), report));
        // Treating an invalid boolean as "false" would turn a canary into a main Ingress with all
        // requests.
        let is_canary = is_canary.map(|value| value.unwrap_or(true));
        if is_canary != Some(true) {
            for name in SETTINGS.iter().skip(1) {
                if annotations.get(name).is_some() {
                    report.warning(&field(name), "it has no effect without canary: \"true\"");
                }
            }
            return None;
        }
        let mut canary = Self {
            total: number("canary-weight-total", 100, annotations, report),
            weight: number("canary-weight", 0, annotations, report),
            ..Self::default()
        };
        if canary.total == 0 {
            report.error(&field("canary-weight-total"), "it is 0, 100 is used");
            canary.total = 100;
        }
        if canary.weight > canary.total {
            let message = format!(
                "it is more than the total of {}: the canary gets everything",
                canary.total
            );
            report.warning(&field("canary-weight"), message);
            canary.weight = canary.total;
        }
        canary.by_header(annotations, report);
        canary.by_cookie(annotations, report);
        if canary.weight == 0 && canary.rules.is_empty() {
            report.warning(
                &field("canary"),
                "it has neither weight nor header nor cookie: it gets no requests",
            );
        }
        Some(canary)
    }

    fn by_header(&mut self, annotations: &Annotations<'_>, report: &mut ObjectFindings<'_>) {
        let value = annotations.get("canary-by-header-value");
        let pattern = annotations.get("canary-by-header-pattern");
        let Some(name) = annotations.get("canary-by-header") else {
            for (name, value) in [("value", value), ("pattern", pattern)] {
                if value.is_some() {
                    let field = field(&format!("canary-by-header-{name}"));
                    report.error(&field, "it has no effect without canary-by-header");
                }
            }
            return;
        };
        let exactly = |value: &str| HeaderMatch::new(name, ValueMatch::Exact(value.into()));
        match (value, pattern) {
            (Some(value), _) => {
                if pattern.is_some() {
                    let field = field("canary-by-header-pattern");
                    report.warning(&field, "it has no effect beside canary-by-header-value");
                }
                self.rules.push((exactly(value), Destination::Canary));
            }
            (None, Some(pattern)) => match value_pattern(pattern) {
                Ok(pattern) => self
                    .rules
                    .push((HeaderMatch::new(name, pattern), Destination::Canary)),
                Err(reason) => report.error(&field("canary-by-header-pattern"), reason),
            },
            (None, None) => {
                self.rules.push((exactly("always"), Destination::Canary));
                self.rules.push((exactly("never"), Destination::Main));
            }
        }
    }

    fn by_cookie(&mut self, annotations: &Annotations<'_>, report: &mut ObjectFindings<'_>) {
        let Some(name) = annotations.get("canary-by-cookie") else {
            return;
        };
        let cookie = |value: &str| {
            // RFC 6265 §5.4: pairs are separated by "; ".
            let pattern = format!("(?:^|;) *{}={value} *(?:;|$)", escape(name));
            value_pattern(&pattern).map(|pattern| HeaderMatch::new("cookie", pattern))
        };
        match (cookie("always"), cookie("never")) {
            (Ok(always), Ok(never)) => {
                self.rules.push((always, Destination::Canary));
                self.rules.push((never, Destination::Main));
            }
            (Err(reason), _) | (_, Err(reason)) => report.error(&field("canary-by-cookie"), reason),
        }
    }
}

fn number(
    name: &str,
    default: u32,
    annotations: &Annotations<'_>,
    report: &mut ObjectFindings<'_>,
) -> u32 {
    let Some(text) = annotations.get(name) else {
        return default;
    };
    text.trim().parse().unwrap_or_else(|_| {
        let message = format!("{text:?} is not a whole number, {default} is used");
        report.error(&field(name), message);
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

/// The regular expression that matches a text literally.
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
