//! The error type, with the kinds of RFC 9209.

use std::fmt;

use http::StatusCode;

use crate::BoxError;

/// Where an error comes from, and so which team should look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorOrigin {
    /// The client sent something that cannot be served.
    Client,
    /// This gateway: its settings, limits or a defect.
    Gateway,
    /// Name resolution.
    Resolver,
    /// The upstream, or the connection to it.
    Upstream,
}

impl ErrorOrigin {
    /// The name in lower case, for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Gateway => "gateway",
            Self::Resolver => "resolver",
            Self::Upstream => "upstream",
        }
    }
}

impl fmt::Display for ErrorOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! error_kinds {
    ($($(#[$doc:meta])* $variant:ident = $token:literal, $origin:ident, $text:literal;)*) => {
        /// The proxy error types of [RFC 9209 §2.3](https://www.rfc-editor.org/rfc/rfc9209#section-2.3).
        ///
        /// The log, the metric and the `error` parameter of the `Proxy-Status` response header use the
        /// same token.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorKind {
            /// Every kind, in the order of the RFC.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The token RFC 9209 registers, such as `dns_error`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $token,)* }
            }

            /// The usual origin of this kind.
            #[must_use]
            pub fn origin(self) -> ErrorOrigin {
                match self { $(Self::$variant => ErrorOrigin::$origin,)* }
            }

            /// A short description for humans.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

error_kinds! {
    /// The name service did not answer in time (§2.3.1).
    DnsTimeout = "dns_timeout", Resolver, "cluster DNS did not answer in time";
    /// The name service answered with an error, or cannot be reached (§2.3.2).
    DnsError = "dns_error", Resolver, "cluster DNS could not resolve the service";
    /// No route or backend fits the request (§2.3.3).
    DestinationNotFound = "destination_not_found", Client, "no route matches the request";
    /// The upstream is considered unavailable; nothing was sent (§2.3.4).
    DestinationUnavailable = "destination_unavailable", Upstream, "the upstream is unavailable";
    /// Policy forbids the address that the name resolved to (§2.3.5).
    DestinationIpProhibited = "destination_ip_prohibited", Resolver, "the resolved address is not allowed";
    /// There is no network route to the address (§2.3.6).
    DestinationIpUnroutable = "destination_ip_unroutable", Upstream, "the upstream's address cannot be routed to";
    /// Nothing listens at the address (§2.3.7).
    ConnectionRefused = "connection_refused", Upstream, "the upstream refused the connection";
    /// The connection closed before the response was complete (§2.3.8).
    ConnectionTerminated = "connection_terminated", Upstream, "the upstream closed the connection";
    /// Connecting took too long (§2.3.9).
    ConnectionTimeout = "connection_timeout", Upstream, "connecting to the upstream took too long";
    /// Nothing arrived from the upstream for too long (§2.3.10).
    ConnectionReadTimeout = "connection_read_timeout", Upstream, "the upstream sent nothing for too long";
    /// The upstream took nothing for too long (§2.3.11).
    ConnectionWriteTimeout = "connection_write_timeout", Upstream, "the upstream took nothing for too long";
    /// A limit on connections or requests is reached (§2.3.12).
    ConnectionLimitReached = "connection_limit_reached", Gateway, "the limit on upstream connections is reached";
    /// The TLS handshake or connection failed (§2.3.13).
    TlsProtocolError = "tls_protocol_error", Upstream, "TLS with the upstream failed";
    /// The upstream's certificate does not verify (§2.3.14).
    TlsCertificateError = "tls_certificate_error", Upstream, "the upstream's certificate does not verify";
    /// The upstream sent a TLS alert (§2.3.15).
    TlsAlertReceived = "tls_alert_received", Upstream, "the upstream sent a TLS alert";
    /// The client's request is invalid (§2.3.16).
    HttpRequestError = "http_request_error", Client, "the request is invalid";
    /// Policy forbids the request (§2.3.17).
    HttpRequestDenied = "http_request_denied", Client, "the request is not allowed";
    /// The response ended before it was complete (§2.3.18).
    HttpResponseIncomplete = "http_response_incomplete", Upstream, "the upstream's response is incomplete";
    /// The response's header section is too large (§2.3.19).
    HttpResponseHeaderSectionSize = "http_response_header_section_size", Upstream, "the upstream's response headers are too large";
    /// The response's body is too large (§2.3.21).
    HttpResponseBodySize = "http_response_body_size", Upstream, "the upstream's response body is too large";
    /// The response's trailer section is too large (§2.3.22).
    HttpResponseTrailerSectionSize = "http_response_trailer_section_size", Upstream, "the upstream's response trailers are too large";
    /// The response's transfer coding is not understood (§2.3.24).
    HttpResponseTransferCoding = "http_response_transfer_coding", Upstream, "the upstream's response has a transfer coding that cannot be decoded";
    /// The response did not come in time (§2.3.26).
    HttpResponseTimeout = "http_response_timeout", Upstream, "the upstream's response did not come in time";
    /// Upgrading the connection failed (§2.3.27).
    HttpUpgradeFailed = "http_upgrade_failed", Upstream, "upgrading the connection failed";
    /// The upstream violates the HTTP protocol (§2.3.28).
    HttpProtocolError = "http_protocol_error", Upstream, "the upstream broke the HTTP protocol";
    /// This gateway generated the response on purpose (§2.3.29).
    ProxyInternalResponse = "proxy_internal_response", Gateway, "answered by the gateway itself";
    /// A defect or lack of resources in this gateway (§2.3.30).
    ProxyInternalError = "proxy_internal_error", Gateway, "the gateway failed";
    /// This gateway is misconfigured for the request (§2.3.31).
    ProxyConfigurationError = "proxy_configuration_error", Gateway, "the gateway is set up wrongly for this request";
    /// The request has passed this gateway before (§2.3.32).
    ProxyLoopDetected = "proxy_loop_detected", Gateway, "the request runs in a loop";
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request could not be served.
///
/// Opaque: it has a [`kind`](Self::kind), an [`origin`](Self::origin), tells whether the request
/// [may be retried](Self::may_retry), and always has a [`source`](std::error::Error::source), which
/// names the likely cause.
///
/// `Display` writes the kind; [`report`](Self::report) writes the whole chain.
///
/// ```
/// use std::error::Error as _;
/// use mesh_ingress_core::{Error, ErrorKind, ErrorOrigin};
///
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// let error = Error::new(ErrorKind::ConnectionRefused, refused).retryable();
/// assert_eq!(error.kind().as_str(), "connection_refused");
/// assert_eq!(error.origin(), ErrorOrigin::Upstream);
/// assert!(error.may_retry());
/// assert!(error.source().is_some());
/// assert_eq!(
///     error.report().to_string(),
///     "the upstream refused the connection (connection_refused): connection refused",
/// );
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    origin: ErrorOrigin,
    retry: bool,
    status: Option<StatusCode>,
    source: BoxError,
}

impl Error {
    /// An error of a kind with its cause, which may be a text that names the likely fault.
    pub fn new(kind: ErrorKind, source: impl Into<BoxError>) -> Self {
        Self(Box::new(Inner {
            kind,
            origin: kind.origin(),
            retry: false,
            status: None,
            source: source.into(),
        }))
    }

    /// Sets the origin, where it is not the usual one of the kind.
    #[must_use]
    pub fn with_origin(mut self, origin: ErrorOrigin) -> Self {
        self.0.origin = origin;
        self
    }

    /// Marks that no upstream has acted on the request, so that it may be retried with any method
    /// (RFC 9110 §9.2.2).
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.0.retry = true;
        self
    }

    /// Sets the status code of the response, where the kind does not decide it: an invalid request has
    /// several (a parameter in RFC 9209 §2.3.16).
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = Some(status);
        self
    }

    /// The status code of the response, where the kind does not decide it.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The RFC 9209 error type.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> ErrorOrigin {
        self.0.origin
    }

    /// Whether it is certain that no upstream has acted on the request.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        self.0.retry
    }

    /// The whole chain of causes in one line, for logs. Not for clients: it names addresses.
    #[must_use]
    pub fn report(&self) -> Report<'_> {
        Report(self)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.kind.description(), self.0.kind)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("origin", &self.0.origin)
            .field("may_retry", &self.0.retry)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0.source)
    }
}

/// Writes an error and all its causes, joined by `: `. Made by [`Error::report`].
#[derive(Debug)]
pub struct Report<'a>(&'a Error);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = self.0.to_string();
        f.write_str(&written)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries repeat their source in their own text.
            if !written.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            written = text;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn tokens_are_distinct_and_registered_style() {
        let mut tokens: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert!(
            tokens
                .iter()
                .all(|token| token.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
        let all = tokens.len();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), all);
    }

    #[test]
    fn error_is_one_pointer() {
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }

    #[test]
    fn report_walks_the_chain_once() {
        let inner = Error::new(ErrorKind::DnsError, "NXDOMAIN for web.default");
        let outer = Error::new(ErrorKind::DestinationUnavailable, inner);
        assert_eq!(
            outer.report().to_string(),
            "the upstream is unavailable (destination_unavailable): \
             cluster DNS could not resolve the service (dns_error): NXDOMAIN for web.default"
        );
        assert!(outer.source().is_some());
        assert!(!outer.may_retry());
    }
}
