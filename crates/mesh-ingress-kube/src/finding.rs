//! Findings: reports about a manifest for its operator.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Part of the manifest is not served, or not as intended. Fix it before use.
    Error,
    /// It is served, but differently from ingress-nginx, or the traffic may bypass the mesh.
    Warning,
    /// For information.
    Info,
}

impl Severity {
    /// `error`, `warning` or `info`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A report about one object.
///
/// `Display` writes one line:
///
/// ```
/// let manifest = r#"
/// apiVersion: networking.k8s.io/v1
/// kind: Ingress
/// metadata:
///   name: shop
///   annotations:
///     nginx.ingress.kubernetes.io/service-upstream: "false"
/// spec:
///   defaultBackend: { service: { name: web, port: { number: 80 } } }
/// "#;
/// let imported = mesh_ingress_kube::from_yaml(manifest)?;
/// assert!(imported.findings[0].to_string().starts_with(
///     "warning: default/shop: nginx.ingress.kubernetes.io/service-upstream: "
/// ));
/// # Ok::<(), mesh_ingress_kube::ImportError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Finding {
    severity: Severity,
    object: String,
    field: String,
    message: String,
}

impl Finding {
    /// Its severity.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The object it is about, `namespace/name`; `document 2 (line 14)` where there is no name.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The annotation or field it is about, such as `spec.rules[0].host`.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The finding, what the gateway does about it, and what the operator can do.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            object,
            field,
            message,
        } = self;
        write!(f, "{severity}: {object}: {field}: {message}")
    }
}

/// Collects findings, each once.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    seen: HashSet<Finding>,
    /// The objects, in order of their first finding.
    order: HashMap<String, usize>,
}

impl Findings {
    fn add(&mut self, severity: Severity, object: &str, field: &str, message: impl fmt::Display) {
        let finding = Finding {
            severity,
            object: one_line(object),
            field: one_line(field),
            message: one_line(&message.to_string()),
        };
        if self.seen.insert(finding.clone()) {
            self.list.push(finding);
        }
    }

    /// A collector for findings about one object.
    pub(crate) fn for_object<'a>(&'a mut self, object: &'a str) -> ObjectFindings<'a> {
        let next = self.order.len();
        self.order.entry(one_line(object)).or_insert(next);
        ObjectFindings {
            findings: self,
            object,
        }
    }

    /// All findings, grouped by object, in the order of the objects.
    pub(crate) fn into_vec(mut self) -> Vec<Finding> {
        let order = |finding: &Finding| self.order.get(&finding.object).copied();
        self.list.sort_by_key(order);
        self.list
    }
}

/// Names come from untrusted files: a line break or an escape sequence in one of them must not reach a
/// terminal or a log.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line
}

/// Collects findings about one object.
#[derive(Debug)]
pub(crate) struct ObjectFindings<'a> {
    findings: &'a mut Findings,
    object: &'a str,
}

impl ObjectFindings<'_> {
    pub(crate) fn add(&mut self, severity: Severity, field: &str, message: impl fmt::Display) {
        self.findings.add(severity, self.object, field, message);
    }

    pub(crate) fn error(&mut self, field: &str, message: impl fmt::Display) {
        self.add(Severity::Error, field, message);
    }

    pub(crate) fn warning(&mut self, field: &str, message: impl fmt::Display) {
        self.add(Severity::Warning, field, message);
    }

    pub(crate) fn info(&mut self, field: &str, message: impl fmt::Display) {
        self.add(Severity::Info, field, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_is_one_line_and_reported_once() {
        let mut findings = Findings::default();
        for _ in 0..2 {
            let report = &mut findings.for_object("x/a\nb");
            report.error("\x1b[31m", "tab\there");
        }
        let lines: Vec<_> = findings
            .into_vec()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(lines, [r"error: x/a\nb: \u{1b}[31m: tab\there"]);
    }
}
