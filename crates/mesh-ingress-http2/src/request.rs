//! Reads the heads and trailers of requests.

use http::header::{CONTENT_LENGTH, EXPECT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::hpack::{DecodeError, Decoded, Decoder, Field};

/// The head of a request, and what it announces.
#[derive(Debug)]
pub struct RequestHead {
    /// The request without its body.
    pub request: Request<()>,
    /// The length of the body, if there is exactly one valid `Content-Length`.
    pub length: Option<u64>,
    /// The `:protocol` of an extended `CONNECT` (RFC 8441 §4).
    pub protocol: Option<HeaderValue>,
    /// The client waits for a 100 before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
}

/// Why a field section is not accepted as a request. The connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is malformed (RFC 9113 §8.1.1), which ends the stream.
    #[error("a malformed request: {0}")]
    Malformed(&'static str),
    /// Its `:path` is not valid in RFC 3986: answer 400.
    #[error("the path has invalid characters")]
    InvalidPath,
    /// It is larger than the limit: answer 431.
    #[error("the field section is larger than the limit")]
    TooLarge,
}

/// The parts of a request, as they come.
#[derive(Default)]
struct Parts {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    invalid_path: bool,
    protocol: Option<HeaderValue>,
    length: Length,
    expects_continue: bool,
    /// A regular field has come.
    regular: bool,
    malformed: Option<&'static str>,
}

/// What `Content-Length` announces.
#[derive(Clone, Copy, Debug, Default)]
enum Length {
    #[default]
    Absent,
    Valid(u64),
    /// Repeated or invalid: left to the checks of the fields.
    Invalid,
}

/// Reads a field section as a request. The request takes the empty map `headers`, for its capacity;
/// `limit` bounds the size of all fields in bytes, with 32 more for each (RFC 9113 §10.5.1).
///
/// # Errors
/// The outer error is a connection error, the inner one a stream error.
pub fn read(
    section: &[u8],
    decoder: &mut Decoder,
    limit: usize,
    headers: &mut HeaderMap,
) -> Result<Result<RequestHead, RequestError>, DecodeError> {
    let mut fields = std::mem::take(headers);
    let mut parts = Parts::default();
    let decoded = decoder.decode(section, limit, |field| parts.add(field, &mut fields))?;
    Ok(match decoded {
        Decoded::TooLarge => Err(RequestError::TooLarge),
        Decoded::Complete => parts.head(fields),
    })
}

/// Reads a field section as the trailers of a request.
///
/// # Errors
/// The outer error is a connection error, the inner one a stream error.
pub fn read_trailers(
    section: &[u8],
    decoder: &mut Decoder,
    limit: usize,
) -> Result<Result<HeaderMap, RequestError>, DecodeError> {
    let mut fields = HeaderMap::new();
    let mut malformed = None;
    let decoded = decoder.decode(section, limit, |field| match field {
        Field::Regular(name, value) => {
            if fields.try_append(name, value).is_err() {
                malformed = Some("too many trailers");
            }
        }
        Field::Malformed(why) => malformed = Some(why),
        _ => malformed = Some("a pseudo-header field among trailers"),
    })?;
    Ok(match (decoded, malformed) {
        (Decoded::TooLarge, _) => Err(RequestError::TooLarge),
        (Decoded::Complete, Some(why)) => Err(RequestError::Malformed(why)),
        (Decoded::Complete, None) => Ok(fields),
    })
}

impl Parts {
    fn add(&mut self, field: Field, fields: &mut HeaderMap) {
        match field {
            Field::Regular(name, value) => {
                self.regular = true;
                self.inspect(&name, &value);
                if fields.try_append(name, value).is_err() {
                    self.malformed = Some("too many fields");
                }
            }
            Field::Malformed(why) => self.malformed = Some(why),
            // RFC 9113 §8.3
            _ if self.regular => {
                self.malformed = Some("a pseudo-header field after a regular field");
            }
            Field::Method(method) => set_once(&mut self.method, method, &mut self.malformed),
            Field::Scheme(scheme) => set_once(&mut self.scheme, scheme, &mut self.malformed),
            Field::Authority(authority) => {
                set_once(&mut self.authority, authority, &mut self.malformed);
            }
            Field::Path(path) => set_once(&mut self.path, path, &mut self.malformed),
            Field::InvalidPath => {
                self.invalid_path = true;
                let path = PathAndQuery::from_static("/");
                set_once(&mut self.path, path, &mut self.malformed);
            }
            Field::Protocol(protocol) => {
                set_once(&mut self.protocol, protocol, &mut self.malformed);
            }
        }
    }

    fn inspect(&mut self, name: &HeaderName, value: &HeaderValue) {
        if *name == CONTENT_LENGTH {
            self.length = match (self.length, number(value.as_bytes())) {
                (Length::Absent, Some(length)) => Length::Valid(length),
                _ => Length::Invalid,
            };
        } else if *name == EXPECT {
            self.expects_continue |= value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        }
    }

    /// RFC 9113 §8.3.1, §8.5; RFC 8441 §4.
    fn head(self, headers: HeaderMap) -> Result<RequestHead, RequestError> {
        if let Some(why) = self.malformed {
            return Err(RequestError::Malformed(why));
        }
        let method = self.method.ok_or(RequestError::Malformed("no `:method`"))?;
        let tunnel = method == Method::CONNECT && self.protocol.is_none();
        if self.protocol.is_some() && method != Method::CONNECT {
            return Err(RequestError::Malformed("a `:protocol` without CONNECT"));
        }
        if tunnel {
            if self.scheme.is_some() || self.path.is_some() {
                let why = "a CONNECT with `:scheme` or `:path`";
                return Err(RequestError::Malformed(why));
            }
        } else if self.scheme.is_none() {
            return Err(RequestError::Malformed("no `:scheme`"));
        } else if self.path.is_none() {
            return Err(RequestError::Malformed("no `:path`"));
        }
        if method == Method::CONNECT && self.authority.is_none() {
            return Err(RequestError::Malformed("a CONNECT without `:authority`"));
        }
        if self.path.as_ref().is_some_and(|path| path == "*") && method != Method::OPTIONS {
            return Err(RequestError::Malformed("`*` is a path of OPTIONS only"));
        }
        if self.invalid_path {
            return Err(RequestError::InvalidPath);
        }
        let mut request = Request::new(());
        *request.uri_mut() = uri(self.scheme, self.authority, self.path)?;
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        Ok(RequestHead {
            request,
            length: match self.length {
                Length::Valid(length) => Some(length),
                Length::Absent | Length::Invalid => None,
            },
            protocol: self.protocol,
            expects_continue: self.expects_continue,
        })
    }
}

fn uri(
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
) -> Result<Uri, RequestError> {
    let mut parts = http::uri::Parts::default();
    // The `http` crate has no scheme without an authority; the host is then in `Host`.
    parts.scheme = scheme.filter(|_| authority.is_some());
    parts.authority = authority;
    parts.path_and_query = path;
    Uri::from_parts(parts).map_err(|_| RequestError::InvalidPath)
}

fn set_once<T>(current: &mut Option<T>, value: T, malformed: &mut Option<&'static str>) {
    if current.replace(value).is_some() {
        *malformed = Some("a repeated pseudo-header field");
    }
}

/// Digits, and nothing else (RFC 9110 §8.6).
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GET: [(&str, &str); 4] = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "shop.example.com"),
        (":path", "/cart?id=1"),
    ];

    fn section(fields: &[(&str, &str)]) -> Vec<u8> {
        let literal = |(name, value): &(&str, &str)| {
            let name_length = u8::try_from(name.len()).unwrap();
            let value_length = u8::try_from(value.len()).unwrap();
            let bytes = [&[0, name_length], name.as_bytes(), &[value_length]];
            [&bytes.concat(), value.as_bytes()].concat()
        };
        fields.iter().map(literal).collect::<Vec<_>>().concat()
    }

    fn head(fields: &[(&str, &str)]) -> Result<RequestHead, RequestError> {
        let section = section(fields);
        read(&section, &mut Decoder::new(0), 1000, &mut HeaderMap::new()).unwrap()
    }

    #[test]
    fn rfc9113_8_3_1_target_is_made_of_pseudo_header_fields() {
        let head = head(&[&GET[..], &[("x", "1"), ("x", "2")]].concat()).unwrap();
        assert_eq!(head.request.method(), Method::GET);
        assert_eq!(head.request.version(), Version::HTTP_2);
        let uri = head.request.uri();
        assert_eq!(uri.to_string(), "http://shop.example.com/cart?id=1");
        assert_eq!(head.request.headers().get_all("x").iter().count(), 2);
        assert_eq!((head.length, head.expects_continue), (None, false));
    }

    #[test]
    fn rfc9113_8_3_1_host_field_may_replace_the_authority() {
        let fields = [GET[0], GET[1], GET[3], ("host", "shop.example.com")];
        let head = head(&fields).unwrap();
        assert_eq!(head.request.uri().to_string(), "/cart?id=1");
    }

    #[test]
    fn rfc8441_4_extended_connect_has_all_pseudo_header_fields_and_plain_connect_only_the_authority()
     {
        let mut fields = [&GET[..], &[(":protocol", "websocket")]].concat();
        assert!(head(&fields).is_err(), "of a GET");
        fields[0].1 = "CONNECT";
        assert_eq!(head(&fields).unwrap().protocol.unwrap(), "websocket");
        assert!(head(&fields[..4]).is_err());
        assert!(head(&fields[..1]).is_err());
        assert!(head(&[fields[0], fields[2]]).unwrap().protocol.is_none());
        assert!(head(&[fields[0], fields[1], fields[3], fields[4]]).is_err());
    }

    #[test]
    fn rfc9110_8_6_length_needs_one_valid_content_length() {
        let length = |values: &[&str]| {
            let lengths = values.iter().map(|value| ("content-length", *value));
            let fields: Vec<_> = GET.into_iter().chain(lengths).collect();
            head(&fields).unwrap().length
        };
        assert_eq!(length(&["5"]), Some(5));
        assert_eq!(length(&["0"]), Some(0));
        for invalid in [
            &["+5"][..],
            &["5", "5"],
            &["5, 5"],
            &[""],
            &["99999999999999999999"],
        ] {
            assert_eq!(length(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn rfc3986_3_3_invalid_path_is_recognised() {
        for path in ["/<", "/a#b", "/`"] {
            let mut fields = GET;
            fields[3].1 = path;
            assert_eq!(
                head(&fields).unwrap_err(),
                RequestError::InvalidPath,
                "{path}"
            );
        }
    }

    #[test]
    fn rfc9113_8_1_trailers_have_no_pseudo_header_fields() {
        let read = |fields: &[(&str, &str)]| {
            read_trailers(&section(fields), &mut Decoder::new(0), 100).unwrap()
        };
        assert_eq!(read(&[("x", "1")]).unwrap()["x"], "1");
        assert!(matches!(
            read(&[(":path", "/")]),
            Err(RequestError::Malformed(_))
        ));
        assert!(matches!(
            read(&[("X", "1")]),
            Err(RequestError::Malformed(_))
        ));
        let large = "y".repeat(100);
        assert_eq!(read(&[("x", &large)]), Err(RequestError::TooLarge));
    }

    #[test]
    fn rfc9110_10_1_1_expect_100_continue_is_recognised() {
        let fields = [&GET[..], &[("expect", "100-Continue")]].concat();
        assert!(head(&fields).unwrap().expects_continue);
    }
}
