//! Reads YAML and JSON into an untyped tree.
//!
//! With a tree, one invalid field is one finding; a typed reader would give up the whole document.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{Error, SnippetMode, Spanned, UserMessageFormatter};

use crate::ImportError;

/// Deep enough for Kubernetes objects, schemas of custom resources included, and shallow enough
/// for the stack of a thread: a level of YAML costs some 20 kB of it in a build for debugging.
const MAX_DEPTH: usize = 64;

/// Enough for legitimate anchors, and few enough to bound a "billion laughs".
const MAX_REPLAYED: usize = 10_000;

/// A node of a document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As text: only whole numbers are computed with.
    Number(String),
    String(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

/// A document and its first line.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) line: u64,
    /// `Err` with the reason for a document that is well-formed but contradictory.
    pub(crate) value: Result<Value, String>,
}

/// Splits a text into its documents, without empty ones.
pub(crate) fn documents(text: &str) -> Result<Vec<Document>, ImportError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPLAYED },
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    let mut bytes = text.as_bytes();
    let mut documents = Vec::new();
    for document in serde_saphyr::read_with_options::<_, Spanned<Value>>(&mut bytes, options) {
        documents.push(match document {
            Ok(spanned) => Document {
                line: spanned.referenced.line(),
                value: Ok(spanned.value),
            },
            Err(error) => recoverable(&error).ok_or_else(|| ImportError::syntax(&error))?,
        });
    }
    Ok(documents)
}

/// An error in a well-formed document affects that document only.
fn recoverable(error: &Error) -> Option<Document> {
    let plain = error.without_snippet();
    let reason = match plain {
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("{key:?} stands twice"),
        Error::DuplicateMappingKey { .. }
        | Error::InvalidBinaryBase64 { .. }
        | Error::BinaryNotUtf8 { .. }
        | Error::MergeValueNotMapOrSeqOfMaps { .. } => one_line(plain),
        _ => return None,
    };
    Some(Document {
        line: plain.location().map_or(0, |location| location.line()),
        value: Err(reason),
    })
}

/// The message without the location, which is reported separately, and without the quoted source.
pub(crate) fn one_line(error: &Error) -> String {
    let text = error.render_with_options(serde_saphyr::render_options! {
        formatter: &UserMessageFormatter,
        snippets: SnippetMode::Off,
    });
    let line = text.lines().next().unwrap_or_default().trim();
    match line.rsplit_once(" at line ") {
        Some((reason, _)) => reason.to_owned(),
        None => line.to_owned(),
    }
}

impl Value {
    /// The name of its type, for "expected …, found …".
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::String(String::from_utf8_lossy(value).into_owned()))
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value, D::Error> {
        Value::deserialize(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Value> {
        let documents = documents(text).unwrap();
        documents.into_iter().map(|d| d.value.unwrap()).collect()
    }

    #[test]
    fn scalars_keep_their_types() {
        let map =
            read("a: 1\nb: '1'\nc: true\nd: yes\ne: ~\nf:\ng: 1.5\nh: |\n  x\n  y\ni: 0x10\n");
        let string = |text: &str| Value::String(text.into());
        let number = |text: &str| Value::Number(text.into());
        let wanted = [
            ("a", number("1")),
            ("b", string("1")),
            ("c", Value::Bool(true)),
            ("d", string("yes")),
            ("e", Value::Null),
            ("f", Value::Null),
            ("g", number("1.5")),
            ("h", string("x\ny\n")),
            ("i", number("16")),
        ];
        let wanted = wanted.map(|(key, value)| (key.to_owned(), value));
        assert_eq!(map, [Value::Map(wanted.into())]);
    }

    #[test]
    fn documents_have_their_lines() {
        let text = "# a comment\n---\na: 1\n---\n---\n# nothing\n---\n- b\n...\n";
        let lines: Vec<_> = documents(text).unwrap().iter().map(|d| d.line).collect();
        assert_eq!(lines, [3, 8]);
        assert!(documents("").unwrap().is_empty());
    }

    #[test]
    fn json_is_read() {
        let json = "{\n\t\"a\": [1, \"x\\n\\u00e9\\/\", null],\n\t\"b\": {}\n}\n";
        let list = Value::List(vec![
            Value::Number("1".into()),
            Value::String("x\né/".into()),
            Value::Null,
        ]);
        let wanted = Value::Map(vec![("a".into(), list), ("b".into(), Value::Map(vec![]))]);
        assert_eq!(read(json), [wanted]);
    }

    #[test]
    fn repeated_key_spoils_its_document_only() {
        let documents = documents("a: 1\n---\nb: 1\nb: 2\n---\nc: 1\n").unwrap();
        let good: Vec<_> = documents.iter().map(|d| d.value.is_ok()).collect();
        assert_eq!(good, [true, false, true]);
        let reason = documents[1].value.as_ref().unwrap_err();
        assert_eq!(reason, "\"b\" stands twice");
    }

    #[test]
    fn syntax_error_has_its_location() {
        for (text, place) in [
            ("a: 1\nb: [1, 2\nc: 3\n", "line "),
            ("a: 'x\n", "line "),
            ("a: 1\n b: 2\n", "line 2, column "),
            ("a: *nowhere\n", "line 1, column 4"),
        ] {
            let error = documents(text).unwrap_err().to_string();
            assert!(error.contains(place), "{text:?}: {error}");
            assert!(!error.contains('\n'), "{error}");
            assert_eq!(error.matches("line ").count(), 1, "{error}");
        }
    }

    #[test]
    fn depth_and_aliases_are_bounded() {
        let flow = "[".repeat(100_000);
        assert!(documents(&flow).is_err());
        let block = "- ".repeat(100_000);
        assert!(documents(&block).is_err());
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..10 {
            let before = format!("*a{}, ", i - 1).repeat(10);
            laughs += &format!("a{i}: &a{i} [{before}]\n");
        }
        assert!(documents(&laughs).is_err());
    }
}
