//! The name of an object.

use crate::finding::{Findings, ObjectFindings};
use crate::node::{Fields, Node};

/// `namespace/name` and its parts, as far as the object has them.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) object: String,
}

impl Identity {
    /// Read before the other fields, so that all findings can name the object. Objects other than
    /// Ingresses are named with their kind.
    pub(crate) fn of(object: &Node<'_>, place: &str) -> Self {
        // Dropped: the full read of the fields reports the same findings.
        let mut dropped = Findings::default();
        let report = &mut dropped.for_object(place);
        let mut fields = object.fields(report);
        let kind = text_of(fields.as_mut(), "kind", report);
        let metadata = fields.and_then(|mut fields| fields.take("metadata"));
        let mut metadata = metadata.and_then(|node| node.fields(report));
        let name = text_of(metadata.as_mut(), "name", report);
        let namespace = match text_of(metadata.as_mut(), "namespace", report) {
            // The default of kubectl.
            "" => "default",
            namespace => namespace,
        };
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            object: match (kind, name) {
                (_, "") => place.to_owned(),
                ("" | "Ingress", name) => format!("{namespace}/{name}"),
                (kind, name) => format!("{kind} {namespace}/{name}"),
            },
        }
    }
}

fn text_of<'a>(
    fields: Option<&mut Fields<'a>>,
    key: &str,
    report: &mut ObjectFindings<'_>,
) -> &'a str {
    let node = fields.and_then(|fields| fields.take(key));
    node.and_then(|node| node.text(report)).unwrap_or_default()
}
