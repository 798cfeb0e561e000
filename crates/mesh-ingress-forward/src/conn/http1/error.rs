//! How an HTTP/1.1 exchange fails.

use std::io;
use std::net::SocketAddr;

use mesh_ingress_core::{BoxError, Error, ErrorKind, ErrorOrigin};
use mesh_ingress_http1::Malformed;

use crate::error::ForwardError;

/// Why an exchange did not complete.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// Not a byte of the request was sent.
    #[error("the connection was closed, or carried unexpected bytes, before the request was sent")]
    Unsent,
    #[error("the connection was closed before the response was complete")]
    Incomplete,
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("interim responses without end, and no final one")]
    EndlessInterim,
    #[error("the response cannot be read")]
    Response(#[source] Malformed),
    #[error("the body of the request failed")]
    RequestBody(#[source] BoxError),
    #[error("the body of the request is not as long as its Content-Length says")]
    RequestLength,
}

impl ExchangeError {
    /// Whether the connection ended under the request.
    pub(crate) fn is_disconnect(&self) -> bool {
        matches!(self, Self::Incomplete | Self::Io(_))
    }

    /// The error of an exchange with the upstream at `addr`.
    pub(crate) fn into_error(self, addr: SocketAddr) -> Error {
        // A request body fails because the client went away; the upstream has no part in it.
        let by_client = matches!(self, Self::RequestBody(_) | Self::RequestLength);
        let unsent = matches!(self, Self::Unsent);
        let kind = match &self {
            Self::RequestBody(_) | Self::RequestLength => ErrorKind::HttpRequestError,
            Self::Response(Malformed::HeadTooLarge) => ErrorKind::HttpResponseHeaderSectionSize,
            Self::Response(Malformed::Chunk(_)) => ErrorKind::HttpResponseTransferCoding,
            Self::Response(Malformed::TrailersTooLarge) => {
                ErrorKind::HttpResponseTrailerSectionSize
            }
            Self::Response(_) | Self::EndlessInterim => ErrorKind::HttpProtocolError,
            // No TCP acknowledgement came back.
            Self::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
                ErrorKind::ConnectionReadTimeout
            }
            _ => ErrorKind::ConnectionTerminated,
        };
        let source = self.into();
        let error = Error::new(kind, ForwardError::Exchange { addr, source });
        let error = if unsent { error.retryable() } else { error };
        if by_client {
            error.with_origin(ErrorOrigin::Client)
        } else {
            error
        }
    }
}

impl From<Malformed> for ExchangeError {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            // The encoder of the request fails with nothing else.
            Malformed::Length => Self::RequestLength,
            malformed => Self::Response(malformed),
        }
    }
}
