//! hyper's errors of an HTTP/2 exchange, as error types of RFC 9209.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;

use mesh_ingress_core::{Error, ErrorKind, ErrorOrigin};

use crate::error::ForwardError;

/// The error of an exchange with the upstream at `addr`.
pub(super) fn into_error(addr: SocketAddr, error: hyper::Error) -> Error {
    // A request body fails because the client went away; the upstream has no part in it.
    let by_client = error.is_user() && !error.is_shutdown();
    let kind = if by_client {
        ErrorKind::HttpRequestError
    } else if error.is_parse_too_large() {
        ErrorKind::HttpResponseHeaderSectionSize
    } else if error.is_parse() || error.is_parse_status() {
        ErrorKind::HttpProtocolError
    } else if error.is_timeout() || is_io_timeout(&error) {
        // Nothing came back: neither the answer to an HTTP/2 ping nor a TCP acknowledgement.
        ErrorKind::ConnectionReadTimeout
    } else {
        ErrorKind::ConnectionTerminated
    };
    let source = error.into();
    let error = Error::new(kind, ForwardError::Exchange { addr, source });
    if by_client {
        error.with_origin(ErrorOrigin::Client)
    } else {
        error
    }
}

/// Whether the connection ended, and not only the stream.
pub(super) fn is_disconnect(error: &hyper::Error) -> bool {
    error.is_closed() || cause::<io::Error>(error).is_some()
}

/// Whether the peer says that it has not acted on the stream: it refused it (RFC 9113 §8.7), or
/// sent a GOAWAY with a lower last stream (§6.8).
pub(super) fn is_refused(error: &hyper::Error) -> bool {
    cause(error).is_some_and(|error: &h2::Error| {
        // h2 gives the error of a GOAWAY from the peer only to streams above its last one.
        error.reason() == Some(h2::Reason::REFUSED_STREAM) && error.is_remote()
            || error.is_go_away() && error.is_remote()
    })
}

fn is_io_timeout(error: &hyper::Error) -> bool {
    cause::<io::Error>(error).is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn cause<E: StdError + 'static>(error: &hyper::Error) -> Option<&E> {
    error.source().and_then(|error| error.downcast_ref())
}
