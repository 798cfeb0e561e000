//! The head of a request, and its trailers.

use http::header::{CONTENT_LENGTH, EXPECT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::hpack::{Decoded, Decoder, Field, NotHpack};

/// A head, and what it says of what follows.
#[derive(Debug)]
pub struct Head {
    /// The request without its body.
    pub request: Request<()>,
    /// How long its body is to be, if that is said once and clearly.
    pub length: Option<u64>,
    /// What an extended `CONNECT` is for (RFC 8441 §4).
    pub protocol: Option<HeaderValue>,
    /// The client waits to be told to send the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
}

/// Why a field section makes no request. The connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is malformed (RFC 9113 §8.1.1), which ends the stream.
    #[error("a malformed request: {0}")]
    Malformed(&'static str),
    /// Its target is not of RFC 3986: 400.
    #[error("a path with characters that no path has")]
    OddPath,
    /// There is more of it than the limit: 431.
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
    odd_path: bool,
    protocol: Option<HeaderValue>,
    length: Length,
    expects_continue: bool,
    /// A field that is not of the frame has come.
    regular: bool,
    malformed: Option<&'static str>,
}

/// What is said of the body's length.
#[derive(Clone, Copy, Debug, Default)]
enum Length {
    #[default]
    Unsaid,
    Said(u64),
    /// Whoever reads the fields has to make something of it.
    Doubtful,
}

/// Reads a field section as a request. `headers` is an empty map whose room it gets, and `limit` is
/// for the size of all fields, each counted with 32 bytes more (RFC 9113 §10.5.1).
///
/// # Errors
/// The outer one ends the connection, the inner one only this stream.
pub fn read(
    section: &[u8],
    decoder: &mut Decoder,
    limit: usize,
    headers: &mut HeaderMap,
) -> Result<Result<Head, Refused>, NotHpack> {
    let mut fields = std::mem::take(headers);
    let mut parts = Parts::default();
    let decoded = decoder.decode(section, limit, |field| parts.add(field, &mut fields))?;
    Ok(match decoded {
        Decoded::TooLarge => Err(Refused::TooLarge),
        Decoded::Whole => parts.head(fields),
    })
}

/// Reads a field section as the trailers of a request.
///
/// # Errors
/// The outer one ends the connection, the inner one only this stream.
pub fn read_trailers(
    section: &[u8],
    decoder: &mut Decoder,
    limit: usize,
) -> Result<Result<HeaderMap, Refused>, NotHpack> {
    let mut fields = HeaderMap::new();
    let mut malformed = None;
    let decoded = decoder.decode(section, limit, |field| match field {
        Field::Regular(name, value) => {
            if fields.try_append(name, value).is_err() {
                malformed = Some("too many trailers");
            }
        }
        Field::Malformed(why) => malformed = Some(why),
        _ => malformed = Some("a pseudo-field among trailers"),
    })?;
    Ok(match (decoded, malformed) {
        (Decoded::TooLarge, _) => Err(Refused::TooLarge),
        (Decoded::Whole, Some(why)) => Err(Refused::Malformed(why)),
        (Decoded::Whole, None) => Ok(fields),
    })
}

impl Parts {
    fn add(&mut self, field: Field, fields: &mut HeaderMap) {
        match field {
            Field::Regular(name, value) => {
                self.regular = true;
                self.look_at(&name, &value);
                if fields.try_append(name, value).is_err() {
                    self.malformed = Some("too many fields");
                }
            }
            Field::Malformed(why) => self.malformed = Some(why),
            // RFC 9113 §8.3
            _ if self.regular => self.malformed = Some("a pseudo-field behind a field"),
            Field::Method(method) => once(&mut self.method, method, &mut self.malformed),
            Field::Scheme(scheme) => once(&mut self.scheme, scheme, &mut self.malformed),
            Field::Authority(authority) => {
                once(&mut self.authority, authority, &mut self.malformed);
            }
            Field::Path(path) => once(&mut self.path, path, &mut self.malformed),
            Field::OddPath => {
                self.odd_path = true;
                let path = PathAndQuery::from_static("/");
                once(&mut self.path, path, &mut self.malformed);
            }
            Field::Protocol(protocol) => once(&mut self.protocol, protocol, &mut self.malformed),
        }
    }

    fn look_at(&mut self, name: &HeaderName, value: &HeaderValue) {
        if *name == CONTENT_LENGTH {
            self.length = match (self.length, number(value.as_bytes())) {
                (Length::Unsaid, Some(length)) => Length::Said(length),
                _ => Length::Doubtful,
            };
        } else if *name == EXPECT {
            self.expects_continue |= value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        }
    }

    /// RFC 9113 §8.3.1, §8.5; RFC 8441 §4.
    fn head(self, headers: HeaderMap) -> Result<Head, Refused> {
        if let Some(why) = self.malformed {
            return Err(Refused::Malformed(why));
        }
        let method = self.method.ok_or(Refused::Malformed("no `:method`"))?;
        let tunnel = method == Method::CONNECT && self.protocol.is_none();
        if self.protocol.is_some() && method != Method::CONNECT {
            return Err(Refused::Malformed("a `:protocol` of another method"));
        }
        if tunnel {
            if self.scheme.is_some() || self.path.is_some() {
                let why = "a CONNECT with `:scheme` or `:path`";
                return Err(Refused::Malformed(why));
            }
        } else if self.scheme.is_none() {
            return Err(Refused::Malformed("no `:scheme`"));
        } else if self.path.is_none() {
            return Err(Refused::Malformed("no `:path`"));
        }
        if method == Method::CONNECT && self.authority.is_none() {
            return Err(Refused::Malformed("a CONNECT without `:authority`"));
        }
        if self.path.as_ref().is_some_and(|path| path == "*") && method != Method::OPTIONS {
            return Err(Refused::Malformed("`*` is a path of OPTIONS only"));
        }
        if self.odd_path {
            return Err(Refused::OddPath);
        }
        let mut request = Request::new(());
        *request.uri_mut() = uri(self.scheme, self.authority, self.path)?;
        *request.method_mut() = method;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = headers;
        Ok(Head {
            request,
            length: match self.length {
                Length::Said(length) => Some(length),
                Length::Unsaid | Length::Doubtful => None,
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
) -> Result<Uri, Refused> {
    let mut parts = http::uri::Parts::default();
    // A scheme without an authority is none for the `http` crate; who it is meant for is in `Host`.
    parts.scheme = scheme.filter(|_| authority.is_some());
    parts.authority = authority;
    parts.path_and_query = path;
    Uri::from_parts(parts).map_err(|_| Refused::OddPath)
}

fn once<T>(place: &mut Option<T>, part: T, malformed: &mut Option<&'static str>) {
    if place.replace(part).is_some() {
        *malformed = Some("a pseudo-field twice");
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

    fn head(fields: &[(&str, &str)]) -> Result<Head, Refused> {
        let section = section(fields);
        read(&section, &mut Decoder::new(0), 1000, &mut HeaderMap::new()).unwrap()
    }

    #[test]
    fn rfc9113_8_3_1_a_request_has_a_target_in_parts() {
        let head = head(&[&GET[..], &[("x", "1"), ("x", "2")]].concat()).unwrap();
        assert_eq!(head.request.method(), Method::GET);
        assert_eq!(head.request.version(), Version::HTTP_2);
        let uri = head.request.uri();
        assert_eq!(uri.to_string(), "http://shop.example.com/cart?id=1");
        assert_eq!(head.request.headers().get_all("x").iter().count(), 2);
        assert_eq!((head.length, head.expects_continue), (None, false));
    }

    #[test]
    fn rfc9113_8_3_1_the_host_may_be_in_a_field() {
        let fields = [GET[0], GET[1], GET[3], ("host", "shop.example.com")];
        let head = head(&fields).unwrap();
        assert_eq!(head.request.uri().to_string(), "/cart?id=1");
    }

    #[test]
    fn rfc8441_4_an_extended_connect_has_all_parts_and_a_plain_one_an_authority_only() {
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
    fn rfc9110_8_6_a_length_is_said_once_and_clearly() {
        let length = |values: &[&str]| {
            let lengths = values.iter().map(|value| ("content-length", *value));
            let fields: Vec<_> = GET.into_iter().chain(lengths).collect();
            head(&fields).unwrap().length
        };
        assert_eq!(length(&["5"]), Some(5));
        assert_eq!(length(&["0"]), Some(0));
        for doubtful in [
            &["+5"][..],
            &["5", "5"],
            &["5, 5"],
            &[""],
            &["99999999999999999999"],
        ] {
            assert_eq!(length(doubtful), None, "{doubtful:?}");
        }
    }

    #[test]
    fn rfc3986_3_3_an_odd_path_is_told_apart() {
        for path in ["/<", "/a#b", "/`"] {
            let mut fields = GET;
            fields[3].1 = path;
            assert_eq!(head(&fields).unwrap_err(), Refused::OddPath, "{path}");
        }
    }

    #[test]
    fn rfc9113_8_1_trailers_have_no_pseudo_fields() {
        let read = |fields: &[(&str, &str)]| {
            read_trailers(&section(fields), &mut Decoder::new(0), 100).unwrap()
        };
        assert_eq!(read(&[("x", "1")]).unwrap()["x"], "1");
        assert!(matches!(
            read(&[(":path", "/")]),
            Err(Refused::Malformed(_))
        ));
        assert!(matches!(read(&[("X", "1")]), Err(Refused::Malformed(_))));
        let large = "y".repeat(100);
        assert_eq!(read(&[("x", &large)]), Err(Refused::TooLarge));
    }

    #[test]
    fn rfc9110_10_1_1_an_expectation_is_told() {
        let fields = [&GET[..], &[("expect", "100-Continue")]].concat();
        assert!(head(&fields).unwrap().expects_continue);
    }
}
