//! Reads the Ingress object.

use mesh_ingress_core::{ServicePort, ServiceRef};

use crate::finding::{Findings, ObjectFindings};
use crate::identity::Identity;
use crate::node::{Fields, Node};

/// Fields of `metadata` that the API server writes and no route depends on.
const METADATA: &[&str] = &[
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// An Ingress.
#[derive(Clone, Debug)]
pub(crate) struct Ingress {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// `namespace/name`.
    pub(crate) object: String,
    pub(crate) annotations: Vec<(String, String)>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) default_backend: Option<Target>,
    pub(crate) tls: Vec<Tls>,
}

/// The paths of one host.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// `*` for any.
    pub(crate) host: String,
    pub(crate) field: String,
    pub(crate) paths: Vec<Path>,
}

#[derive(Clone, Debug)]
pub(crate) struct Path {
    pub(crate) path: String,
    pub(crate) kind: PathKind,
    pub(crate) target: Target,
    pub(crate) field: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    Exact,
    Prefix,
    ImplementationSpecific,
}

/// Where requests are sent.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Service(ServiceRef),
    /// The backend is not usable, which has been reported.
    Unusable,
}

/// A certificate an Ingress asks for.
///
/// Certificates belong to the listener: give it the certificate and key of this Secret for these
/// hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// The Ingress that asks, `namespace/name`.
    pub object: String,
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret, of type `kubernetes.io/tls`. `None` if the Ingress leaves it to the
    /// controller's default certificate.
    pub secret_name: Option<String>,
    /// The hosts it is for; empty for all hosts of the Ingress.
    pub hosts: Vec<String>,
}

/// Reads an Ingress whose `apiVersion` and `kind` have been checked.
pub(crate) fn read(identity: Identity, mut fields: Fields<'_>, findings: &mut Findings) -> Ingress {
    let Identity {
        namespace,
        name,
        object,
    } = identity;
    let report = &mut findings.for_object(&object);
    fields.ignore(&["apiVersion", "kind", "status"]);
    let mut annotations = Vec::new();
    match fields.take("metadata").and_then(|node| node.fields(report)) {
        Some(metadata) => annotations = read_metadata(metadata, report),
        None => report.error("metadata.name", "it is missing"),
    }
    let mut ingress = Ingress {
        namespace,
        name,
        object: object.clone(),
        annotations,
        rules: Vec::new(),
        default_backend: None,
        tls: Vec::new(),
    };
    match fields.take("spec").and_then(|node| node.fields(report)) {
        Some(spec) => read_spec(&mut ingress, spec, report),
        None => report.error("spec", "it is missing: there is nothing to route"),
    }
    fields.finish(report);
    ingress
}

fn read_metadata(mut fields: Fields<'_>, report: &mut ObjectFindings<'_>) -> Vec<(String, String)> {
    if fields.take("name").is_none() {
        report.error("metadata.name", "it is missing");
    }
    if let Some(namespace) = fields.take("namespace") {
        namespace.text(report);
    }
    let mut annotations = Vec::new();
    let entries = fields
        .take("annotations")
        .and_then(|node| node.fields(report));
    for (key, mut node) in entries.map(Fields::into_entries).unwrap_or_default() {
        // Annotations are reported by their names, without a path.
        node.path = key.to_owned();
        if let Some(value) = node.loose_text(report) {
            annotations.push((key.to_owned(), value));
        }
    }
    fields.ignore(METADATA);
    fields.finish(report);
    annotations
}

fn read_spec(ingress: &mut Ingress, mut spec: Fields<'_>, report: &mut ObjectFindings<'_>) {
    if let Some(class) = spec.take("ingressClassName") {
        let field = class.path.clone();
        if let Some(class) = class.text(report) {
            report_class(class, &field, report);
        }
    }
    if let Some(backend) = spec.take("defaultBackend") {
        ingress.default_backend = Some(read_backend(&backend, &ingress.namespace, report));
    }
    for rule in list(&mut spec, "rules", report) {
        if let Some(rule) = read_rule(&rule, &ingress.namespace, report) {
            ingress.rules.push(rule);
        }
    }
    for tls in list(&mut spec, "tls", report) {
        let object = ingress.object.clone();
        if let Some(tls) = read_tls(&tls, object, ingress.namespace.clone(), report) {
            ingress.tls.push(tls);
        }
    }
    if ingress.rules.is_empty() && ingress.default_backend.is_none() {
        report.error(
            "spec",
            "it has neither rules nor a defaultBackend: there is nothing to route",
        );
    }
    spec.finish(report);
}

/// Also called for the annotation that preceded the field.
pub(crate) fn report_class(class: &str, field: &str, report: &mut ObjectFindings<'_>) {
    if class != "nginx" {
        report.info(
            field,
            format!("class {class:?} is not asked for: every Ingress given is read, with the annotations of ingress-nginx"),
        );
    }
}

fn list<'a>(fields: &mut Fields<'a>, key: &str, report: &mut ObjectFindings<'_>) -> Vec<Node<'a>> {
    fields
        .take(key)
        .map(|node| node.list(report))
        .unwrap_or_default()
}

fn read_rule(node: &Node<'_>, namespace: &str, report: &mut ObjectFindings<'_>) -> Option<Rule> {
    let mut fields = node.fields(report)?;
    let host = match fields.take("host") {
        // An unreadable host must not become a rule for every host.
        Some(host) => host.text(report)?,
        None => "",
    };
    let mut paths = Vec::new();
    if let Some(mut http) = fields.take("http").and_then(|node| node.fields(report)) {
        for path in list(&mut http, "paths", report) {
            paths.extend(read_path(&path, namespace, report));
        }
        http.finish(report);
    }
    fields.finish(report);
    Some(Rule {
        host: if host.is_empty() { "*" } else { host }.to_owned(),
        field: node.path.clone(),
        paths,
    })
}

fn read_path(node: &Node<'_>, namespace: &str, report: &mut ObjectFindings<'_>) -> Option<Path> {
    let mut fields = node.fields(report)?;
    let path = match fields.take("path") {
        Some(path) => path.text(report)?,
        None => "",
    };
    let kind_field = format!("{}.pathType", node.path);
    let kind = match fields.take("pathType") {
        Some(kind) => kind.text(report)?,
        None => {
            report.error(
                &kind_field,
                "it is missing, Kubernetes wants one; taken for ImplementationSpecific",
            );
            "ImplementationSpecific"
        }
    };
    let kind = match kind {
        "Exact" => PathKind::Exact,
        "Prefix" => PathKind::Prefix,
        "ImplementationSpecific" => PathKind::ImplementationSpecific,
        other => {
            report.error(
                &kind_field,
                format!("{other:?} is not one of Exact, Prefix, ImplementationSpecific; the path is left out"),
            );
            return None;
        }
    };
    let target = match fields.take("backend") {
        Some(backend) => read_backend(&backend, namespace, report),
        None => {
            report.error(&format!("{}.backend", node.path), UNUSABLE);
            Target::Unusable
        }
    };
    fields.finish(report);
    Some(Path {
        // As in ingress-nginx, a missing path is the root.
        path: if path.is_empty() { "/" } else { path }.to_owned(),
        kind,
        target,
        field: node.path.clone(),
    })
}

const UNUSABLE: &str = "there is no Service to send to; requests are answered with 503";

fn read_backend(node: &Node<'_>, namespace: &str, report: &mut ObjectFindings<'_>) -> Target {
    let Some(mut fields) = node.fields(report) else {
        return Target::Unusable;
    };
    if let Some(resource) = fields.take("resource") {
        report.error(
            &resource.path,
            "resource backends are not supported; requests are answered with 503",
        );
        return Target::Unusable;
    }
    let service = fields.take("service").and_then(|node| node.fields(report));
    fields.finish(report);
    let Some(mut service) = service else {
        report.error(&format!("{}.service", node.path), UNUSABLE);
        return Target::Unusable;
    };
    let name = service.take("name").and_then(|node| node.text(report));
    let port = service.take("port").and_then(|node| node.fields(report));
    let port = port.and_then(|port| read_port(port, report));
    service.finish(report);
    let (Some(name), Some(port)) = (name, port) else {
        report.error(&format!("{}.service", node.path), UNUSABLE);
        return Target::Unusable;
    };
    match ServiceRef::new(name, namespace, port) {
        Ok(service) => Target::Service(service),
        Err(error) => {
            let message = format!("{error}; requests are answered with 503");
            report.error(&format!("{}.service", node.path), message);
            Target::Unusable
        }
    }
}

fn read_port(mut fields: Fields<'_>, report: &mut ObjectFindings<'_>) -> Option<ServicePort> {
    let number = fields.take("number");
    let name = fields.take("name");
    fields.finish(report);
    let (node, text) = match (number, name) {
        (Some(number), None) => {
            let text = number.number(report)?;
            (number, text)
        }
        (None, Some(name)) => {
            let text = name.text(report)?;
            (name, text)
        }
        (Some(number), Some(_)) => {
            report.error(&number.path, "a port has a number or a name, not both");
            return None;
        }
        (None, None) => return None,
    };
    match text.parse() {
        // A name of digits only would be parsed as a number.
        Ok(ServicePort::Number(_)) if node.path.ends_with(".name") => {
            report.error(&node.path, format!("port name {text:?} has no letter"));
            None
        }
        Ok(port) => Some(port),
        Err(error) => {
            report.error(&node.path, error);
            None
        }
    }
}

fn read_tls(
    node: &Node<'_>,
    object: String,
    namespace: String,
    report: &mut ObjectFindings<'_>,
) -> Option<Tls> {
    let mut fields = node.fields(report)?;
    let secret_name = fields.take("secretName").and_then(|node| node.text(report));
    let mut hosts = Vec::new();
    for host in list(&mut fields, "hosts", report) {
        hosts.extend(host.text(report).map(str::to_owned));
    }
    fields.finish(report);
    let secret = match secret_name {
        Some(name) => format!("Secret {namespace}/{name}"),
        None => "the default certificate".to_owned(),
    };
    report.info(
        &node.path,
        format!(
            "certificates belong to the listener: give it {secret} for {}",
            hosts_text(&hosts)
        ),
    );
    Some(Tls {
        object,
        namespace,
        secret_name: secret_name.map(str::to_owned),
        hosts,
    })
}

fn hosts_text(hosts: &[String]) -> String {
    match hosts {
        [] => "all hosts".to_owned(),
        hosts => hosts.join(", "),
    }
}
