//! Reads a tree field by field, and reports everything that it does not understand.

use crate::finding::ObjectFindings;
use crate::yaml::Value;

/// A value and its path, such as `spec.rules[0].host`.
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

    pub(crate) fn fields(&self, report: &mut ObjectFindings<'_>) -> Option<Fields<'a>> {
        match self.value {
            Value::Map(map) => Some(Fields {
                path: self.path.clone(),
                rest: map.iter().map(|(key, value)| (&**key, value)).collect(),
            }),
            other => self.mismatch("a mapping", other, report),
        }
    }

    pub(crate) fn list(&self, report: &mut ObjectFindings<'_>) -> Vec<Node<'a>> {
        match self.value {
            Value::List(items) => {
                let item = |(i, value)| Node {
                    path: format!("{}[{i}]", self.path),
                    value,
                };
                items.iter().enumerate().map(item).collect()
            }
            other => self.mismatch("a list", other, report).unwrap_or_default(),
        }
    }

    pub(crate) fn text(&self, report: &mut ObjectFindings<'_>) -> Option<&'a str> {
        match self.value {
            Value::String(text) => Some(text),
            other => self.mismatch("a string", other, report),
        }
    }

    /// A string, or a scalar that was meant as one and lacks its quotes.
    pub(crate) fn loose_text(&self, report: &mut ObjectFindings<'_>) -> Option<String> {
        let text = match self.value {
            Value::String(text) => return Some(text.clone()),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.clone(),
            other => return self.mismatch("a string", other, report),
        };
        report.warning(
            &self.path,
            format!(
                "expected a string, found {}: Kubernetes refuses it, quote it as {text:?}",
                self.value.kind()
            ),
        );
        Some(text)
    }

    /// A number, as it is written.
    pub(crate) fn number(&self, report: &mut ObjectFindings<'_>) -> Option<&'a str> {
        match self.value {
            Value::Number(number) => Some(number),
            other => self.mismatch("a number", other, report),
        }
    }

    fn mismatch<T>(
        &self,
        expected: &str,
        found: &Value,
        report: &mut ObjectFindings<'_>,
    ) -> Option<T> {
        let field = match &*self.path {
            "" => "document",
            path => path,
        };
        let found = found.kind();
        report.error(
            field,
            format!("expected {expected}, found {found}; it is left out"),
        );
        None
    }
}

impl<'a> Fields<'a> {
    /// Removes a field and returns it. Null counts as absent.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node<'a>> {
        let at = self.rest.iter().position(|(known, _)| *known == key)?;
        let (key, value) = self.rest.remove(at);
        (*value != Value::Null).then(|| Node {
            path: self.path_of(key),
            value,
        })
    }

    /// Removes fields without a meaning here.
    pub(crate) fn ignore(&mut self, keys: &[&str]) {
        self.rest.retain(|(key, _)| !keys.contains(key));
    }

    /// Reports the fields that have not been read.
    pub(crate) fn finish(self, report: &mut ObjectFindings<'_>) {
        for (key, _) in &self.rest {
            report.warning(&self.path_of(key), "this field is not known and not read");
        }
    }

    /// The remaining fields, in order.
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
