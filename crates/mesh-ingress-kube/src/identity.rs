//! What an object is called.

use crate::finding::{About, Findings};
use crate::node::{Fields, Node};

/// `namespace/name`, and its parts, as far as the object has them.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) object: String,
}

impl Identity {
    /// Looks before anything else is read, so that all findings can name the object. Objects that
    /// are no Ingress are named with their kind.
    pub(crate) fn of(object: &Node<'_>, place: &str) -> Self {
        // Findings about this are made when the fields are read in earnest.
        let mut unheard = Findings::default();
        let about = &mut unheard.about(place);
        let mut fields = object.fields(about);
        let kind = text_of(fields.as_mut(), "kind", about);
        let metadata = fields.and_then(|mut fields| fields.take("metadata"));
        let mut metadata = metadata.and_then(|node| node.fields(about));
        let name = text_of(metadata.as_mut(), "name", about);
        let namespace = match text_of(metadata.as_mut(), "namespace", about) {
            // As kubectl has it, unless told otherwise.
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

fn text_of<'a>(fields: Option<&mut Fields<'a>>, key: &str, about: &mut About<'_>) -> &'a str {
    let node = fields.and_then(|fields| fields.take(key));
    node.and_then(|node| node.text(about)).unwrap_or_default()
}
