//! The one place where an error becomes an answer.

use std::fmt;
use std::sync::Arc;

use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION,
    RETRY_AFTER,
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use mesh_ingress_core::{Body, Error, ErrorKind};
use mesh_ingress_forward::ResponseBody;

use crate::event::Failures;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
/// What is passed on; only `CONNECT` and `TRACE` are refused (RFC 9110 §15.5.6 wants a list).
const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
const RETRY_SOON: HeaderValue = HeaderValue::from_static("1");

/// How the client wants to hear of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As a status code.
    Http,
    /// As a status code and no body, whatever a `GET` would get (RFC 9110 §9.3.2).
    Head,
    /// As a status code that is no success: that would open the tunnel (RFC 9110 §9.3.6).
    Tunnel,
    /// As `grpc-status` in a response that is `200` for HTTP (gRPC over HTTP/2, "Responses").
    Grpc,
}

impl Dialect {
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        if method == Method::HEAD {
            return Self::Head;
        }
        let grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| {
            let kind = kind.as_bytes();
            kind.starts_with(b"application/grpc") && !kind.starts_with(b"application/grpc-web")
        });
        if grpc { Self::Grpc } else { Self::Http }
    }
}

/// Makes the answers. What they say of the inside of the gateway is its RFC 9209 error type,
/// unless details are switched on.
#[derive(Debug)]
pub(crate) struct Responder {
    name: String,
    details: bool,
    page: Option<ErrorPage>,
    failures: Failures,
}

/// Makes own error pages of ours.
#[derive(Clone)]
pub(crate) struct ErrorPage(Arc<Render>);

type Render = dyn Fn(&Error, Response<Body>) -> Response<Body> + Send + Sync;

impl ErrorPage {
    pub(crate) fn new(
        render: impl Fn(&Error, Response<Body>) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(render))
    }
}

impl fmt::Debug for ErrorPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErrorPage")
    }
}

impl Responder {
    pub(crate) fn new(name: &str, details: bool, page: Option<ErrorPage>) -> Self {
        Self {
            name: name.to_owned(),
            details,
            page,
            failures: Failures::default(),
        }
    }

    /// The answer to a request that failed with `error`, which is logged here, once.
    pub(crate) fn respond(&self, dialect: Dialect, error: &Error) -> Response<ResponseBody> {
        self.failures.log(error);
        let status = status(error);
        let mut response = match (dialect, &self.page) {
            (Dialect::Grpc, _) => grpc_answer(status, error),
            (Dialect::Tunnel, _) | (_, None) => http_answer(status, error),
            (_, Some(page)) => (page.0)(error, http_answer(status, error)),
        };
        let status = response.status();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, NO_STORE);
        if let Ok(value) = HeaderValue::from_str(&self.proxy_status(error)) {
            headers.insert(PROXY_STATUS, value);
        }
        let passes = matches!(
            error.kind(),
            ErrorKind::ConnectionLimitReached | ErrorKind::DestinationUnavailable
        );
        if passes && status == StatusCode::SERVICE_UNAVAILABLE {
            headers.entry(RETRY_AFTER).or_insert(RETRY_SOON);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, METHODS);
        }
        // Where a message begins and ends is in doubt after a malformed one (RFC 9112 §9.6). gRPC
        // comes over HTTP/1.1, too: by those who hope that it makes a difference here.
        let malformed = error.kind() == ErrorKind::HttpRequestError;
        if dialect != Dialect::Tunnel && malformed {
            headers.insert(CONNECTION, CLOSE);
        }
        match dialect {
            Dialect::Head => headed(response),
            _ => response.map(ResponseBody::from),
        }
    }

    /// The answer of a route that has no backend but a status.
    pub(crate) fn on_purpose(&self, status: StatusCode) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = status;
        if may_have_body(status) {
            *response.body_mut() = Body::from(format!("{status}\n")).into();
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
        }
        let headers = response.headers_mut();
        let kind = ErrorKind::ProxyInternalResponse;
        if let Ok(value) = HeaderValue::from_str(&format!("{}; error={kind}", self.name)) {
            headers.insert(PROXY_STATUS, value);
        }
        response
    }

    /// The answer to an `OPTIONS` that is not to go further (RFC 9110 §7.6.2).
    pub(crate) fn options(&self) -> Response<ResponseBody> {
        let mut response = self.on_purpose(StatusCode::NO_CONTENT);
        response.headers_mut().insert(ALLOW, METHODS);
        response
    }

    /// The `Proxy-Status` member of this gateway (RFC 9209 §2).
    fn proxy_status(&self, error: &Error) -> String {
        let mut value = format!("{}; error={}", self.name, error.kind());
        if self.details {
            // An sf-string is visible ASCII with `"` and `\` escaped (RFC 8941 §3.3.3).
            value.push_str("; details=\"");
            for c in error.report().to_string().chars() {
                match c {
                    '"' | '\\' => value.extend(['\\', c]),
                    ' '..='~' => value.push(c),
                    _ => value.push('?'),
                }
            }
            value.push('"');
        }
        value
    }
}

/// The status code of an error. RFC 9209 §2.3 recommends one for each type; where a client is
/// better off to come back, ours is 503.
fn status(error: &Error) -> StatusCode {
    if let Some(status) = error.status() {
        return status;
    }
    match error.kind() {
        ErrorKind::HttpRequestError => StatusCode::BAD_REQUEST,
        ErrorKind::HttpRequestDenied => StatusCode::FORBIDDEN,
        ErrorKind::DestinationNotFound => StatusCode::NOT_FOUND,
        // A Service that is not there yet, and a DNS that is down, both pass.
        ErrorKind::DnsError
        | ErrorKind::DnsTimeout
        | ErrorKind::DestinationUnavailable
        | ErrorKind::ConnectionLimitReached => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::ConnectionTimeout
        | ErrorKind::ConnectionReadTimeout
        | ErrorKind::ConnectionWriteTimeout
        | ErrorKind::HttpResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::ProxyInternalError | ErrorKind::ProxyConfigurationError => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// Sends the client elsewhere.
pub(crate) fn redirect(
    status: StatusCode,
    location: &str,
) -> Result<Response<ResponseBody>, Error> {
    let location = HeaderValue::from_str(location)
        .map_err(|error| Error::new(ErrorKind::HttpRequestError, error))?;
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

fn http_answer(status: StatusCode, error: &Error) -> Response<Body> {
    let text = format!("{status} ({})\n", error.kind());
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

/// What `HEAD` gets of an answer: not every server drops the body (RFC 9110 §9.3.2).
pub(crate) fn headed<B: http_body::Body>(response: Response<B>) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact()
        && may_have_body(head.status)
    {
        let length = HeaderValue::from(length);
        head.headers.entry(CONTENT_LENGTH).or_insert(length);
    }
    Response::from_parts(head, ResponseBody::empty())
}

/// Whether a response to `GET` of this status may have a body (RFC 9110 §6.4.1, §15.3.6).
fn may_have_body(status: StatusCode) -> bool {
    use StatusCode as S;
    !status.is_informational()
        && !matches!(status, S::NO_CONTENT | S::RESET_CONTENT | S::NOT_MODIFIED)
}

/// A gRPC "trailers-only" response.
fn grpc_answer(status: StatusCode, error: &Error) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from_static(grpc_code(status)));
    // Percent-encoded by the gRPC protocol; the tokens of RFC 9209 need none.
    let message = HeaderValue::from_static(error.kind().as_str());
    headers.insert(GRPC_MESSAGE, message);
    response
}

/// The mapping of gRPC's "HTTP to gRPC Status Code Mapping", with time-outs told apart.
fn grpc_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 431 => "13",       // INTERNAL
        401 => "16",             // UNAUTHENTICATED
        403 => "7",              // PERMISSION_DENIED
        404 => "12",             // UNIMPLEMENTED
        408 | 504 => "4",        // DEADLINE_EXCEEDED
        429 | 502 | 503 => "14", // UNAVAILABLE
        _ => "2",                // UNKNOWN
    }
}
