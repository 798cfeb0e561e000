//! Reading a tree field by field: whatever is not understood becomes a finding.

use crate::finding::About;
use crate::yaml::Value;

/// A value and where it stands, such as `spec.rules[0].host`.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) path: String,
    value: &'a Value,
}

/// The fields of a mapping that have not been read yet.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    path: String,
    rest: Vec<(&'a str, &'a Value)>,
}

impl<'a> Node<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            path: String::new(),
            value,
        }
    }

    pub(crate) fn fields(&self, about: &mut About<'_>) -> Option<Fields<'a>> {
        match self.value {
            Value::Map(map) => Some(Fields {
                path: self.path.clone(),
                rest: map.iter().map(|(key, value)| (&**key, value)).collect(),
            }),
            other => self.mismatch("a mapping", other, about),
        }
    }

    pub(crate) fn list(&self, about: &mut About<'_>) -> Vec<Node<'a>> {
        match self.value {
            Value::List(items) => {
                let item = |(i, value)| Node {
                    path: format!("{}[{i}]", self.path),
                    value,
                };
                items.iter().enumerate().map(item).collect()
            }
            other => self.mismatch("a list", other, about).unwrap_or_default(),
        }
    }

    pub(crate) fn text(&self, about: &mut About<'_>) -> Option<&'a str> {
        match self.value {
            Value::String(text) => Some(text),
            other => self.mismatch("a string", other, about),
        }
    }

    /// A string, or what was meant as one and lacks its quotes.
    pub(crate) fn loose_text(&self, about: &mut About<'_>) -> Option<String> {
        let text = match self.value {
            Value::String(text) => return Some(text.clone()),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.clone(),
            other => return self.mismatch("a string", other, about),
        };
        about.warning(
            &self.path,
            format!(
                "expected a string, found {}: Kubernetes refuses it, quote it as {text:?}",
                self.value.kind()
            ),
        );
        Some(text)
    }

    /// A number, as it is written.
    pub(crate) fn number(&self, about: &mut About<'_>) -> Option<&'a str> {
        match self.value {
            Value::Number(number) => Some(number),
            other => self.mismatch("a number", other, about),
        }
    }

    fn mismatch<T>(&self, expected: &str, found: &Value, about: &mut About<'_>) -> Option<T> {
        let field = match &*self.path {
            "" => "document",
            path => path,
        };
        let found = found.kind();
        about.error(
            field,
            format!("expected {expected}, found {found}; it is left out"),
        );
        None
    }
}

impl<'a> Fields<'a> {
    /// Takes a field out. One that is null is as good as absent.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node<'a>> {
        let at = self.rest.iter().position(|(known, _)| *known == key)?;
        let (key, value) = self.rest.remove(at);
        (*value != Value::Null).then(|| Node {
            path: self.path_of(key),
            value,
        })
    }

    /// Takes fields out that mean nothing here.
    pub(crate) fn ignore(&mut self, keys: &[&str]) {
        self.rest.retain(|(key, _)| !keys.contains(key));
    }

    /// Reports what has not been read.
    pub(crate) fn finish(self, about: &mut About<'_>) {
        for (key, _) in &self.rest {
            about.warning(&self.path_of(key), "this field is not known and not read");
        }
    }

    /// All that is left, in order.
    pub(crate) fn into_entries(self) -> Vec<(&'a str, Node<'a>)> {
        let node = |(key, value)| {
            let path = self.path_of(key);
            (key, Node { path, value })
        };
        self.rest.iter().copied().map(node).collect()
    }

    fn path_of(&self, key: &str) -> String {
        match &*self.path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }
}
