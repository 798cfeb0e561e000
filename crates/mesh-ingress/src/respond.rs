//! The one place where an error becomes a response.

use std::fmt;
use std::sync::Arc;

use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION,
    RETRY_AFTER,
};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use mesh_ingress_core::{Body, Error, ErrorKind};
use mesh_ingress_forward::ResponseBody;

use crate::error_log::ErrorLog;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const CLOSE: HeaderValue = HeaderValue::from_static("close");
/// The methods that are forwarded; only `CONNECT` and `TRACE` are refused (RFC 9110 §15.5.6 wants a
/// list).
const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
const RETRY_SOON: HeaderValue = HeaderValue::from_static("1");

/// The form in which a client gets errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorFormat {
    /// As a status code.
    Http,
    /// As a status code without the body that a `GET` would get (RFC 9110 §9.3.2).
    Head,
    /// As a status code other than 2xx, which would open the tunnel (RFC 9110 §9.3.6).
    Tunnel,
    /// As `grpc-status` in a response that is `200` for HTTP (gRPC over HTTP/2, "Responses").
    Grpc,
}

impl ErrorFormat {
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

/// Makes local replies. Of the gateway's internals they tell the RFC 9209 error type only, unless
/// details are switched on.
#[derive(Debug)]
pub(crate) struct Responder {
    name: String,
    details: bool,
    page: Option<ErrorPage>,
    error_log: ErrorLog,
}

/// Renders custom error pages.
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
            error_log: ErrorLog::default(),
        }
    }

    /// The response to a request that failed with `error`, which is logged here, once.
    pub(crate) fn respond(&self, format: ErrorFormat, error: &Error) -> Response<ResponseBody> {
        self.error_log.log(error);
        let status = status(error);
        let mut response = match (format, &self.page) {
            (ErrorFormat::Grpc, _) => grpc_response(status, error),
            (ErrorFormat::Tunnel, _) | (_, None) => http_response(status, error),
            (_, Some(page)) => (page.0)(error, http_response(status, error)),
        };
        let status = response.status();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, NO_STORE);
        if let Ok(value) = HeaderValue::from_str(&self.proxy_status(error)) {
            headers.insert(PROXY_STATUS, value);
        }
        let is_temporary = matches!(
            error.kind(),
            ErrorKind::ConnectionLimitReached | ErrorKind::DestinationUnavailable
        );
        if is_temporary && status == StatusCode::SERVICE_UNAVAILABLE {
            headers.entry(RETRY_AFTER).or_insert(RETRY_SOON);
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, METHODS);
        }
        // After a malformed message the start of the next one is in doubt (RFC 9112 §9.6). A gRPC
        // request is no exception: an attacker may send its content type over HTTP/1.1.
        let malformed = error.kind() == ErrorKind::HttpRequestError;
        if format != ErrorFormat::Tunnel && malformed {
            headers.insert(CONNECTION, CLOSE);
        }
        match format {
            ErrorFormat::Head => without_body(response),
            _ => response.map(ResponseBody::from),
        }
    }

    /// The response of a route that has a status instead of backends.
    pub(crate) fn local_reply(&self, status: StatusCode) -> Response<ResponseBody> {
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

    /// The response to an `OPTIONS` whose `Max-Forwards` is used up (RFC 9110 §7.6.2).
    pub(crate) fn options(&self) -> Response<ResponseBody> {
        let mut response = self.local_reply(StatusCode::NO_CONTENT);
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

/// The status code of an error: the one RFC 9209 §2.3 recommends for its type, or 503 where the
/// client had better retry.
fn status(error: &Error) -> StatusCode {
    if let Some(status) = error.status() {
        return status;
    }
    match error.kind() {
        ErrorKind::HttpRequestError => StatusCode::BAD_REQUEST,
        ErrorKind::HttpRequestDenied => StatusCode::FORBIDDEN,
        ErrorKind::DestinationNotFound => StatusCode::NOT_FOUND,
        // A Service that does not exist yet and a failed DNS server are both temporary.
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

/// The response that sends the client to `location`.
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

fn http_response(status: StatusCode, error: &Error) -> Response<Body> {
    let text = format!("{status} ({})\n", error.kind());
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

/// The response to `HEAD`: the body is removed here because not every server does so (RFC 9110
/// §9.3.2).
pub(crate) fn without_body<B: http_body::Body>(response: Response<B>) -> Response<ResponseBody> {
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
fn grpc_response(status: StatusCode, error: &Error) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from_static(grpc_code(status)));
    // Percent-encoded by the gRPC protocol; the tokens of RFC 9209 need none.
    let message = HeaderValue::from_static(error.kind().as_str());
    headers.insert(GRPC_MESSAGE, message);
    response
}

/// gRPC's "HTTP to gRPC Status Code Mapping", and a code of its own for time-outs.
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
