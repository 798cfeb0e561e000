//! Refused messages, and the rules they break.

use http::StatusCode;
use mesh_ingress_core::{Error, ErrorKind};

macro_rules! request_rules {
    ($($(#[$doc:meta])* $variant:ident = $status:ident, $close:literal, $section:literal, $text:literal;)*) => {
        /// The rules a request can break.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RequestRule {
            $($(#[$doc])* $variant,)*
        }

        impl RequestRule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The status to answer with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// The RFC section of the rule.
            #[must_use]
            pub fn section(self) -> &'static str {
                match self { $(Self::$variant => $section,)* }
            }

            /// The rule in words.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            fn closes_connection(self) -> bool {
                match self { $(Self::$variant => $close,)* }
            }
        }
    };
}

request_rules! {
    /// HTTP/0.9, or an unknown version.
    Version = HTTP_VERSION_NOT_SUPPORTED, true, "RFC 9110 §15.6.6",
        "the protocol version is not supported";
    /// `CONNECT` asks for a tunnel, which a reverse proxy does not provide.
    MethodConnect = METHOD_NOT_ALLOWED, true, "RFC 9110 §9.3.6",
        "CONNECT is not allowed, this is no forward proxy";
    /// `TRACE` would show a client the fields that proxies added.
    MethodTrace = METHOD_NOT_ALLOWED, false, "RFC 9110 §9.3.8", "TRACE is not allowed";
    /// A line ends in something other than CRLF.
    LineEnd = BAD_REQUEST, true, "RFC 9112 §2.2", "a line does not end in CRLF";
    /// The request line is not `method SP target SP version`.
    RequestLine = BAD_REQUEST, true, "RFC 9112 §3",
        "the request line is not a method, a target and a version";
    /// `#` in the target.
    Fragment = BAD_REQUEST, true, "RFC 9112 §3.2", "the request target has a fragment";
    /// A field name is empty or no token, for example with whitespace before its colon.
    FieldName = BAD_REQUEST, true, "RFC 9112 §5.1",
        "a field name is not a token with a colon after it";
    /// A field value that continues on the next line.
    LineFolding = BAD_REQUEST, true, "RFC 9112 §5.2", "a field value is folded into several lines";
    /// A control character in a field value.
    FieldValue = BAD_REQUEST, true, "RFC 9110 §5.5", "there is a control character in a field value";
    /// The request target has none of the forms a gateway serves.
    Target = BAD_REQUEST, true, "RFC 9112 §3.2",
        "the request target is neither a path beginning with '/' nor an absolute http URI";
    /// `*` stands for the server as a whole, which only `OPTIONS` can ask about.
    TargetAsterisk = BAD_REQUEST, true, "RFC 9112 §3.2.4",
        "the request target '*' is for OPTIONS only";
    /// The target is longer than the limit.
    TargetTooLong = URI_TOO_LONG, true, "RFC 9110 §15.5.15", "the request target is too long";
    /// `user:password@` in the authority.
    UserInfo = BAD_REQUEST, true, "RFC 9110 §4.2.4",
        "the authority carries user information";
    /// HTTP/1.1 without `Host`.
    HostMissing = BAD_REQUEST, true, "RFC 9112 §3.2", "the Host field is missing";
    /// Neither target nor `Host` names an authority (HTTP/1.0, HTTP/2).
    AuthorityUnknown = BAD_REQUEST, true, "RFC 9110 §7.2",
        "neither the request target nor a Host field names the authority";
    /// More than one `Host` line.
    HostRepeated = BAD_REQUEST, true, "RFC 9112 §3.2", "there are several Host fields";
    /// `Host` or the target's authority is not `host [":" port]`.
    HostInvalid = BAD_REQUEST, true, "RFC 9110 §7.2",
        "the host is not a name or an IP address with an optional port";
    /// HTTP/2: `Host` and `:authority` name different servers.
    HostConflict = BAD_REQUEST, true, "RFC 9113 §8.3.1",
        "the Host field differs from :authority";
    /// Both `Transfer-Encoding` and `Content-Length`: two answers to where the body ends.
    TransferEncodingAndContentLength = BAD_REQUEST, true, "RFC 9112 §6.1",
        "there are both Transfer-Encoding and Content-Length";
    /// `Transfer-Encoding` in HTTP/1.0.
    TransferEncodingInHttp10 = BAD_REQUEST, true, "RFC 9112 §6.1",
        "there is a Transfer-Encoding in HTTP/1.0";
    /// `Transfer-Encoding` is not the one word `chunked`.
    TransferEncoding = BAD_REQUEST, true, "RFC 9112 §6.3",
        "the Transfer-Encoding is not exactly chunked";
    /// A transfer coding before `chunked` that is not decoded here.
    TransferCodingUnknown = NOT_IMPLEMENTED, true, "RFC 9112 §6.1",
        "the Transfer-Encoding names a coding other than chunked";
    /// `Content-Length` is not a plain number.
    ContentLength = BAD_REQUEST, true, "RFC 9110 §8.6",
        "the Content-Length is not a plain number";
    /// More than one `Content-Length`, equal or not.
    ContentLengthRepeated = BAD_REQUEST, true, "RFC 9110 §8.6",
        "there are several Content-Lengths";
    /// The size of a chunk is not a plain hexadecimal number.
    ChunkSize = BAD_REQUEST, true, "RFC 9112 §7.1",
        "the size of a chunk is not a plain hexadecimal number";
    /// A chunk extension has control characters, or is too long.
    ChunkExtension = BAD_REQUEST, true, "RFC 9112 §7.1.1",
        "a chunk extension is too long or has control characters";
    /// The data of a chunk is not followed by CRLF.
    ChunkEnd = BAD_REQUEST, true, "RFC 9112 §7.1", "the data of a chunk does not end in CRLF";
    /// The protocol was changed in the middle of a request.
    SwitchedTooEarly = BAD_REQUEST, true, "RFC 9110 §7.8",
        "the protocol was changed before the request was complete";
    /// HTTP/2: `Connection` and its like.
    ConnectionSpecific = BAD_REQUEST, true, "RFC 9113 §8.2.2",
        "there is a connection-specific field in HTTP/2";
    /// HTTP/2: `TE` other than `trailers`.
    TeInHttp2 = BAD_REQUEST, true, "RFC 9113 §8.2.2",
        "the TE field is other than trailers in HTTP/2";
    /// `Max-Forwards` is not a plain number.
    MaxForwards = BAD_REQUEST, true, "RFC 9110 §7.6.2",
        "the Max-Forwards field is not one plain number";
    /// More fields than the limit.
    TooManyFields = REQUEST_HEADER_FIELDS_TOO_LARGE, true, "RFC 6585 §5",
        "there are too many header fields";
    /// A larger header section than the limit.
    SectionTooLarge = REQUEST_HEADER_FIELDS_TOO_LARGE, true, "RFC 6585 §5",
        "the header section is too large";
    /// A field name with `_`, where policy rejects those.
    Underscore = BAD_REQUEST, true, "policy", "a field name contains '_'";
}

/// A request that must be refused, and why.
///
/// No part of such a request may reach an upstream, which might read a second request in it (RFC 9112
/// §11.2).
///
/// ```
/// use http::{HeaderMap, Method, StatusCode, Uri, Version};
/// use mesh_ingress_headers::framing;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("content-length", "+5".parse()?);
/// let error = framing::check_request(
///     &Method::POST,
///     &Uri::from_static("/"),
///     Version::HTTP_11,
///     &headers,
/// )
/// .unwrap_err();
/// assert_eq!(error.status(), StatusCode::BAD_REQUEST);
/// assert_eq!(
///     error.to_string(),
///     "the Content-Length is not a plain number (RFC 9110 §8.6)",
/// );
/// # Ok::<(), http::header::InvalidHeaderValue>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} ({})", .0.description(), .0.section())]
pub struct InvalidRequest(RequestRule);

impl InvalidRequest {
    /// The rule the request breaks.
    #[must_use]
    pub fn rule(&self) -> RequestRule {
        self.0
    }

    /// The status to answer with: 400, 405, 414, 431, 501 or 505.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }

    /// Whether an HTTP/1 connection must be closed after the answer, because it is not certain
    /// where the request ends. True for all but a `TRACE`.
    #[must_use]
    pub fn closes_connection(&self) -> bool {
        self.0.closes_connection()
    }
}

impl From<RequestRule> for InvalidRequest {
    fn from(rule: RequestRule) -> Self {
        Self(rule)
    }
}

impl From<InvalidRequest> for Error {
    fn from(error: InvalidRequest) -> Self {
        Self::new(ErrorKind::HttpRequestError, error).with_status(error.status())
    }
}

/// A response that is refused: its connection must not be used again, and the client gets a 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidResponse {
    /// Both `Transfer-Encoding` and `Content-Length`.
    #[error("the response has both Transfer-Encoding and Content-Length (RFC 9112 §6.3)")]
    TransferEncodingAndContentLength,
    /// `Transfer-Encoding` is not the one word `chunked`.
    #[error("the response's Transfer-Encoding is not exactly chunked (RFC 9112 §6.1)")]
    TransferEncoding,
    /// `Transfer-Encoding` in HTTP/1.0, or in a 1xx or 204.
    #[error("the response has a Transfer-Encoding where none may be (RFC 9112 §6.1)")]
    TransferEncodingNotAllowed,
    /// `Content-Length` is not a plain number.
    #[error("the response's Content-Length is not a plain number (RFC 9110 §8.6)")]
    ContentLength,
    /// More than one `Content-Length`.
    #[error("the response has several Content-Lengths (RFC 9110 §8.6)")]
    ContentLengthRepeated,
    /// A `Content-Length` other than 0 on a 1xx or 204.
    #[error("the response announces a body where none may be (RFC 9110 §8.6)")]
    ContentNotAllowed,
    /// `Connection` and its like in HTTP/2.
    #[error("the response has a connection-specific field in HTTP/2 (RFC 9113 §8.2.2)")]
    ConnectionSpecific,
    /// More fields than the limit.
    #[error("the response has too many header fields")]
    TooManyFields,
    /// A larger header section than the limit.
    #[error("the response's header section is too large")]
    SectionTooLarge,
}

impl InvalidResponse {
    /// The RFC 9209 error type.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::TransferEncoding => ErrorKind::HttpResponseTransferCoding,
            Self::TooManyFields | Self::SectionTooLarge => ErrorKind::HttpResponseHeaderSectionSize,
            _ => ErrorKind::HttpProtocolError,
        }
    }
}

impl From<InvalidResponse> for Error {
    fn from(error: InvalidResponse) -> Self {
        Self::new(error.kind(), error)
    }
}

/// The request has passed this gateway before (RFC 9110 §7.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request has passed this gateway before, its Via says (RFC 9110 §7.6.3)")]
#[non_exhaustive]
pub struct LoopDetected;

impl LoopDetected {
    /// 508 Loop Detected (RFC 5842 §7.2).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        StatusCode::LOOP_DETECTED
    }
}

impl From<LoopDetected> for Error {
    fn from(error: LoopDetected) -> Self {
        Self::new(ErrorKind::ProxyLoopDetected, error).with_status(error.status())
    }
}
