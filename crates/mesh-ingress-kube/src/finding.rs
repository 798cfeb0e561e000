//! What an operator is to know about a manifest.

use std::collections::HashSet;
use std::fmt;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Part of the manifest is not served, or not as it is meant. To be looked at before use.
    Error,
    /// It is served, and behaves differently from ingress-nginx, or the mesh may lose the traffic.
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

/// One thing an operator is to know about one object.
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
    /// How much it matters.
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

    /// What is found, what is done about it here, and what can be done about it there.
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
}

impl Findings {
    pub(crate) fn add(
        &mut self,
        severity: Severity,
        object: &str,
        field: &str,
        message: impl fmt::Display,
    ) {
        let finding = Finding {
            severity,
            object: object.to_owned(),
            field: field.to_owned(),
            message: message.to_string(),
        };
        if self.seen.insert(finding.clone()) {
            self.list.push(finding);
        }
    }

    /// For findings about one object.
    pub(crate) fn about<'a>(&'a mut self, object: &'a str) -> About<'a> {
        About {
            findings: self,
            object,
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Finding> {
        self.list
    }
}

/// Collects findings about one object.
#[derive(Debug)]
pub(crate) struct About<'a> {
    findings: &'a mut Findings,
    object: &'a str,
}

impl About<'_> {
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
