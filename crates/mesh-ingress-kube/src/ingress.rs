//! The Ingress object, as far as it is read.

use mesh_ingress_core::{ServicePort, ServiceRef};

use crate::finding::{About, Findings};
use crate::identity::Identity;
use crate::node::{Fields, Node};

/// What the API server writes into `metadata`, which no route depends on.
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
    /// What is there cannot be sent to, and has been reported.
    Unusable,
}

/// A certificate an Ingress asks for.
///
/// Certificates are the business of whoever listens: give the listener the certificate and key of
/// this Secret for these hosts.
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

/// Reads an Ingress whose `apiVersion` and `kind` have been seen to.
pub(crate) fn read(identity: Identity, mut fields: Fields<'_>, findings: &mut Findings) -> Ingress {
    let Identity {
        namespace,
        name,
        object,
    } = identity;
    let about = &mut findings.about(&object);
    fields.ignore(&["apiVersion", "kind", "status"]);
    let mut annotations = Vec::new();
    match fields.take("metadata").and_then(|node| node.fields(about)) {
        Some(metadata) => annotations = read_metadata(metadata, about),
        None => about.error("metadata.name", "it is missing"),
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
    match fields.take("spec").and_then(|node| node.fields(about)) {
        Some(spec) => read_spec(&mut ingress, spec, about),
        None => about.error("spec", "it is missing: there is nothing to route"),
    }
    fields.finish(about);
    ingress
}

fn read_metadata(mut fields: Fields<'_>, about: &mut About<'_>) -> Vec<(String, String)> {
    if fields.take("name").is_none() {
        about.error("metadata.name", "it is missing");
    }
    if let Some(namespace) = fields.take("namespace") {
        namespace.text(about);
    }
    let mut annotations = Vec::new();
    let entries = fields
        .take("annotations")
        .and_then(|node| node.fields(about));
    for (key, mut node) in entries.map(Fields::into_entries).unwrap_or_default() {
        // Annotations are known by their names.
        node.path = key.to_owned();
        if let Some(value) = node.loose_text(about) {
            annotations.push((key.to_owned(), value));
        }
    }
    fields.ignore(METADATA);
    fields.finish(about);
    annotations
}

fn read_spec(ingress: &mut Ingress, mut spec: Fields<'_>, about: &mut About<'_>) {
    if let Some(class) = spec.take("ingressClassName") {
        let field = class.path.clone();
        if let Some(class) = class.text(about) {
            about_class(class, &field, about);
        }
    }
    if let Some(backend) = spec.take("defaultBackend") {
        ingress.default_backend = Some(read_backend(&backend, &ingress.namespace, about));
    }
    for rule in list(&mut spec, "rules", about) {
        if let Some(rule) = read_rule(&rule, &ingress.namespace, about) {
            ingress.rules.push(rule);
        }
    }
    for tls in list(&mut spec, "tls", about) {
        let object = ingress.object.clone();
        if let Some(tls) = read_tls(&tls, object, ingress.namespace.clone(), about) {
            ingress.tls.push(tls);
        }
    }
    if ingress.rules.is_empty() && ingress.default_backend.is_none() {
        about.error(
            "spec",
            "it has neither rules nor a defaultBackend: there is nothing to route",
        );
    }
    spec.finish(about);
}

/// Also asked about the annotation that came before the field.
pub(crate) fn about_class(class: &str, field: &str, about: &mut About<'_>) {
    if class != "nginx" {
        about.info(
            field,
            format!("class {class:?} is not asked for: every Ingress given is read, with the annotations of ingress-nginx"),
        );
    }
}

fn list<'a>(fields: &mut Fields<'a>, key: &str, about: &mut About<'_>) -> Vec<Node<'a>> {
    fields
        .take(key)
        .map(|node| node.list(about))
        .unwrap_or_default()
}

fn read_rule(node: &Node<'_>, namespace: &str, about: &mut About<'_>) -> Option<Rule> {
    let mut fields = node.fields(about)?;
    let host = match fields.take("host") {
        // A host that cannot be read must not become a rule for every host.
        Some(host) => host.text(about)?,
        None => "",
    };
    let mut paths = Vec::new();
    if let Some(mut http) = fields.take("http").and_then(|node| node.fields(about)) {
        for path in list(&mut http, "paths", about) {
            paths.extend(read_path(&path, namespace, about));
        }
        http.finish(about);
    }
    fields.finish(about);
    Some(Rule {
        host: if host.is_empty() { "*" } else { host }.to_owned(),
        field: node.path.clone(),
        paths,
    })
}

fn read_path(node: &Node<'_>, namespace: &str, about: &mut About<'_>) -> Option<Path> {
    let mut fields = node.fields(about)?;
    let path = match fields.take("path") {
        Some(path) => path.text(about)?,
        None => "",
    };
    let kind_field = format!("{}.pathType", node.path);
    let kind = match fields.take("pathType") {
        Some(kind) => kind.text(about)?,
        None => {
            about.error(
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
            about.error(
                &kind_field,
                format!("{other:?} is not one of Exact, Prefix, ImplementationSpecific; the path is left out"),
            );
            return None;
        }
    };
    let target = match fields.take("backend") {
        Some(backend) => read_backend(&backend, namespace, about),
        None => {
            about.error(&format!("{}.backend", node.path), UNUSABLE);
            Target::Unusable
        }
    };
    fields.finish(about);
    Some(Path {
        // As ingress-nginx has it: a path that is not given is the root.
        path: if path.is_empty() { "/" } else { path }.to_owned(),
        kind,
        target,
        field: node.path.clone(),
    })
}

const UNUSABLE: &str = "there is no Service to send to; requests are answered with 503";

fn read_backend(node: &Node<'_>, namespace: &str, about: &mut About<'_>) -> Target {
    let Some(mut fields) = node.fields(about) else {
        return Target::Unusable;
    };
    if let Some(resource) = fields.take("resource") {
        about.error(
            &resource.path,
            "resource backends are not supported; requests are answered with 503",
        );
        return Target::Unusable;
    }
    let service = fields.take("service").and_then(|node| node.fields(about));
    fields.finish(about);
    let Some(mut service) = service else {
        about.error(&format!("{}.service", node.path), UNUSABLE);
        return Target::Unusable;
    };
    let name = service.take("name").and_then(|node| node.text(about));
    let port = service.take("port").and_then(|node| node.fields(about));
    let port = port.and_then(|port| read_port(port, about));
    service.finish(about);
    let (Some(name), Some(port)) = (name, port) else {
        about.error(&format!("{}.service", node.path), UNUSABLE);
        return Target::Unusable;
    };
    match ServiceRef::new(name, namespace, port) {
        Ok(service) => Target::Service(service),
        Err(error) => {
            let message = format!("{error}; requests are answered with 503");
            about.error(&format!("{}.service", node.path), message);
            Target::Unusable
        }
    }
}

fn read_port(mut fields: Fields<'_>, about: &mut About<'_>) -> Option<ServicePort> {
    let number = fields.take("number");
    let name = fields.take("name");
    fields.finish(about);
    let (node, text) = match (number, name) {
        (Some(number), None) => {
            let text = number.number(about)?;
            (number, text)
        }
        (None, Some(name)) => {
            let text = name.text(about)?;
            (name, text)
        }
        (Some(number), Some(_)) => {
            about.error(&number.path, "a port has a number or a name, not both");
            return None;
        }
        (None, None) => return None,
    };
    match text.parse() {
        // A name of digits only would be taken for a number.
        Ok(ServicePort::Number(_)) if node.path.ends_with(".name") => {
            about.error(&node.path, format!("port name {text:?} has no letter"));
            None
        }
        Ok(port) => Some(port),
        Err(error) => {
            about.error(&node.path, error);
            None
        }
    }
}

fn read_tls(
    node: &Node<'_>,
    object: String,
    namespace: String,
    about: &mut About<'_>,
) -> Option<Tls> {
    let mut fields = node.fields(about)?;
    let secret_name = fields.take("secretName").and_then(|node| node.text(about));
    let mut hosts = Vec::new();
    for host in list(&mut fields, "hosts", about) {
        hosts.extend(host.text(about).map(str::to_owned));
    }
    fields.finish(about);
    let secret = match secret_name {
        Some(name) => format!("Secret {namespace}/{name}"),
        None => "the default certificate".to_owned(),
    };
    about.info(
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
