//! Reads a manifest into routes and findings.

use mesh_ingress_route::Route;

use crate::ImportError;
use crate::convert;
use crate::finding::{Finding, Findings, Severity};
use crate::identity::Identity;
use crate::ingress::{self, Ingress, Tls};
use crate::node::Node;
use crate::settings::Settings;
use crate::yaml;

const INGRESS: (&str, &str) = ("networking.k8s.io/v1", "Ingress");

/// A converted manifest.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Imported {
    /// The routes; they always make a [`RouteTable`](mesh_ingress_route::RouteTable).
    pub routes: Vec<Route>,
    /// The findings, grouped by object.
    pub findings: Vec<Finding>,
    /// The certificates that the Ingresses ask for.
    pub tls: Vec<Tls>,
}

impl Imported {
    /// Whether part of the manifest is not served, or not as intended.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|finding| finding.severity() == Severity::Error)
    }
}

/// Reads Kubernetes manifests: one or several documents of YAML or JSON, each an object or a
/// `List` of them.
///
/// Join objects of several files that belong together (a canary and its main Ingress) with `---` lines.
///
/// Every `Ingress` of `networking.k8s.io/v1` is read; other objects are mentioned and left out.
/// A fault in one object, rule or path is a [`Finding`]; all others are read.
///
/// ```
/// use mesh_ingress_kube::from_yaml;
///
/// let imported = from_yaml(r#"
/// apiVersion: networking.k8s.io/v1
/// kind: Ingress
/// metadata: { name: shop, namespace: prod }
/// spec:
///   rules:
///   - host: shop.example.com
///     http:
///       paths:
///       - { path: /, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }
/// "#)?;
/// assert_eq!(imported.routes[0].to_string(), "shop.example.com/=web.prod:80");
/// assert!(!imported.has_errors());
/// # Ok::<(), mesh_ingress_kube::ImportError>(())
/// ```
///
/// # Errors
/// When the text is not well-formed; with line and column.
pub fn from_yaml(text: &str) -> Result<Imported, ImportError> {
    let documents = yaml::documents(text)?;
    let mut findings = Findings::default();
    let mut ingresses = Vec::new();
    for (i, document) in documents.iter().enumerate() {
        let place = format!("document {} (line {})", i + 1, document.line);
        match &document.value {
            Ok(value) => {
                let root = Node::root(value);
                object(&root, &place, ("", ""), &mut ingresses, &mut findings);
            }
            Err(reason) => {
                let message = format!("{reason}; the document is left out");
                findings.for_object(&place).error("syntax", message);
            }
        }
    }
    if ingresses.is_empty() {
        let (version, kind) = INGRESS;
        let message = format!("there is no {kind} of {version} in it");
        findings.for_object("manifest").warning("kind", message);
    }
    let mut read = Vec::new();
    for ingress in ingresses {
        let settings = Settings::read(&ingress, &mut findings.for_object(&ingress.object));
        read.push((ingress, settings));
    }
    let routes = convert::routes(&read, &mut findings);
    Ok(Imported {
        routes,
        findings: findings.into_vec(),
        tls: read
            .into_iter()
            .flat_map(|(ingress, _)| ingress.tls)
            .collect(),
    })
}

/// Reads an object. `usual` is its default type: the items of a typed list need not repeat the type.
fn object(
    node: &Node<'_>,
    place: &str,
    usual: (&str, &str),
    ingresses: &mut Vec<Ingress>,
    findings: &mut Findings,
) {
    let identity = Identity::of(node, place);
    let report = &mut findings.for_object(&identity.object);
    let Some(mut fields) = node.fields(report) else {
        return;
    };
    let mut text = |key, usual| {
        let field = fields.take(key);
        field
            .map_or(Some(usual), |field| field.text(report))
            .unwrap_or_default()
    };
    let (version, kind) = (text("apiVersion", usual.0), text("kind", usual.1));
    match (version, kind) {
        INGRESS => ingresses.push(ingress::read(identity, fields, findings)),
        (version, "List" | "IngressList") => {
            let usual = if kind == "List" {
                ("", "")
            } else {
                (version, INGRESS.1)
            };
            let items = fields.take("items").map(|items| items.list(report));
            for (i, item) in items.unwrap_or_default().iter().enumerate() {
                let place = format!("{place} item {}", i + 1);
                object(item, &place, usual, ingresses, findings);
            }
        }
        (version, "Ingress") => report.error(
            "apiVersion",
            format!(
                "Ingress of {version:?} is not read, expected {:?} (kubectl convert)",
                INGRESS.0
            ),
        ),
        (_, "HTTPRoute" | "GRPCRoute" | "TLSRoute") => {
            report.warning("kind", format!("{kind} is not read yet"));
        }
        (_, "") => report.error("kind", "it is missing: this is no Kubernetes object"),
        _ => report.info(
            "kind",
            format!("{kind} of {version} is no Ingress, it is not read"),
        ),
    }
}
