//! Request bodies on their way to an upstream.

mod expect;
mod progress;
mod request;

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;
use mesh_ingress_core::BoxError;
use mesh_ingress_headers::trailers;

pub(crate) use self::expect::{Expectation, expects_continue, hold_for_continue};
pub(crate) use self::progress::{BodyStep, Progress};
pub(crate) use self::request::RequestBody;

/// The result of polling a body.
pub(crate) type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// Removes fields that must not be in trailers, such as those of framing, routing and
/// authentication: the message has been processed without them (RFC 9110 §6.5.1).
pub(crate) fn without_forbidden_trailers(mut polled: Polled) -> Polled {
    if let Poll::Ready(Some(Ok(frame))) = &mut polled
        && let Some(fields) = frame.trailers_mut()
    {
        trailers::filter(fields);
    }
    polled
}
