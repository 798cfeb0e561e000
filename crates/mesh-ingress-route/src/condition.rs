//! Conditions of a route besides host and path.

use std::fmt;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method};
use mesh_ingress_core::ParseError;

use crate::table::RouteQuery;

/// A condition on the value of a header field or query parameter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ValueMatch {
    /// This text, case-sensitive.
    Exact(Box<str>),
    /// Any value; it must be present.
    Present,
    /// A value that contains a match of this case-sensitive regular expression.
    #[cfg(feature = "regex")]
    Regex(Box<str>),
}

/// A condition on a header field. A field with several lines meets it if one of them does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct HeaderMatch {
    /// The name of the field, case-insensitive.
    pub name: Box<str>,
    /// The condition on its value.
    pub value: ValueMatch,
}

/// A condition on a query parameter, compared as sent. The first of several parameters with the name
/// counts, as the Gateway API recommends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct QueryMatch {
    /// The name of the parameter, case-sensitive.
    pub name: Box<str>,
    /// The condition on its value. A parameter without `=` has an empty value.
    pub value: ValueMatch,
}

impl HeaderMatch {
    /// A condition on the field `name`.
    pub fn new(name: impl Into<Box<str>>, value: ValueMatch) -> Self {
        Self {
            name: name.into(),
            value,
        }
    }
}

impl QueryMatch {
    /// A condition on the parameter `name`.
    pub fn new(name: impl Into<Box<str>>, value: ValueMatch) -> Self {
        Self {
            name: name.into(),
            value,
        }
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "={text}"),
            Self::Present => Ok(()),
            #[cfg(feature = "regex")]
            Self::Regex(text) => write!(f, "~{text}"),
        }
    }
}

/// The compiled conditions of a route. Most routes have none.
#[derive(Clone, Debug)]
pub(crate) struct Conditions(Option<Box<ConditionSet>>);

#[derive(Clone, Debug)]
struct ConditionSet {
    method: Option<Method>,
    headers: Box<[(HeaderName, ValueRule)]>,
    query: Box<[(Box<str>, ValueRule)]>,
}

#[derive(Clone, Debug)]
enum ValueRule {
    Exact(Box<[u8]>),
    Present,
    #[cfg(feature = "regex")]
    Regex(regex::bytes::Regex),
}

/// Two routes with equal keys have the same conditions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConditionsKey {
    method: Option<Method>,
    headers: Vec<(Box<str>, ValueMatch)>,
    query: Vec<(Box<str>, ValueMatch)>,
}

impl Conditions {
    pub(crate) fn compile(
        method: Option<&Method>,
        headers: &[HeaderMatch],
        query: &[QueryMatch],
    ) -> Result<(Self, ConditionsKey), ParseError> {
        let mut names = Vec::with_capacity(headers.len());
        let mut header_key = Vec::with_capacity(headers.len());
        for HeaderMatch { name, value } in headers {
            let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                ParseError::new("header name", name, "it is not a token (RFC 9110 §5.1)")
            })?;
            if let ValueMatch::Exact(text) = value {
                HeaderValue::from_str(text).map_err(|_| {
                    let reason = "it has characters that no header value has (RFC 9110 §5.5)";
                    ParseError::new("header value", text, reason)
                })?;
            }
            header_key.push((field.as_str().into(), value.clone()));
            names.push((field, ValueRule::compile(value)?));
        }
        let mut params = Vec::with_capacity(query.len());
        let mut query_key = Vec::with_capacity(query.len());
        for QueryMatch { name, value } in query {
            check_query_text(name, true)?;
            if let ValueMatch::Exact(text) = value {
                check_query_text(text, false)?;
            }
            query_key.push((name.clone(), value.clone()));
            params.push((name.clone(), ValueRule::compile(value)?));
        }
        header_key.sort_unstable();
        query_key.sort_unstable();
        let key = ConditionsKey {
            method: method.cloned(),
            headers: header_key,
            query: query_key,
        };
        let conditions = ConditionSet {
            method: method.cloned(),
            headers: names.into(),
            query: params.into(),
        };
        let none = conditions.method.is_none()
            && conditions.headers.is_empty()
            && conditions.query.is_empty();
        Ok((Self((!none).then(|| Box::new(conditions))), key))
    }

    /// The rank of the conditions, lowest first: with a method, then by number of headers, then by
    /// number of query parameters.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
        use std::cmp::Reverse;
        let conditions = self.0.as_deref();
        let (headers, query) = conditions.map_or((0, 0), |conditions| {
            (conditions.headers.len(), conditions.query.len())
        });
        (
            conditions.is_none_or(|conditions| conditions.method.is_none()),
            Reverse(headers),
            Reverse(query),
        )
    }

    #[inline]
    pub(crate) fn match_request(&self, request: &RouteQuery<'_>) -> bool {
        self.0
            .as_ref()
            .is_none_or(|conditions| conditions.match_request(request))
    }
}

impl ConditionSet {
    fn match_request(&self, request: &RouteQuery<'_>) -> bool {
        self.method
            .as_ref()
            .is_none_or(|method| method == request.method)
            && self
                .headers
                .iter()
                .all(|rule| has_header(request.headers, rule))
            && self.query.iter().all(|rule| has_param(request.query, rule))
    }
}

impl ValueRule {
    fn compile(value: &ValueMatch) -> Result<Self, ParseError> {
        Ok(match value {
            ValueMatch::Exact(text) => Self::Exact(text.as_bytes().into()),
            ValueMatch::Present => Self::Present,
            #[cfg(feature = "regex")]
            ValueMatch::Regex(pattern) => Self::Regex(crate::pattern::of_value(pattern)?),
        })
    }

    fn accepts(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(bytes) => **bytes == *value,
            Self::Present => true,
            #[cfg(feature = "regex")]
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

fn has_header(headers: &HeaderMap, (name, rule): &(HeaderName, ValueRule)) -> bool {
    headers
        .get_all(name)
        .iter()
        .any(|value| rule.accepts(value.as_bytes()))
}

fn has_param(query: Option<&str>, (name, rule): &(Box<str>, ValueRule)) -> bool {
    query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .map(|param| param.split_once('=').unwrap_or((param, "")))
        .find(|(param, _)| *param == &**name)
        .is_some_and(|(_, value)| rule.accepts(value.as_bytes()))
}

fn check_query_text(text: &str, name: bool) -> Result<(), ParseError> {
    let what = match name {
        true => "query parameter name",
        false => "query parameter value",
    };
    if name && text.is_empty() {
        return Err(ParseError::new(what, text, "it is empty"));
    }
    let forbidden = |c: char| !c.is_ascii_graphic() || matches!(c, '&' | '#') || (name && c == '=');
    match text.char_indices().find(|(_, c)| forbidden(*c)) {
        Some((at, c)) => Err(ParseError::new(
            what,
            text,
            format!(
                "{c:?} at position {} must be percent-encoded, as clients send it",
                at + 1
            ),
        )),
        None => Ok(()),
    }
}
