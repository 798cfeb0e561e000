//! The bodies that travel: outward with progress kept, inward with the connection they came on.

mod progress;
mod request;
mod response;

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;
use mesh_ingress_core::BoxError;
use mesh_ingress_headers::trailers;

pub(crate) use self::progress::{Moved, Progress};
pub use self::request::RequestBody;
pub use self::response::ResponseBody;

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// Trailers come when all is decided: they must not say what would have decided otherwise
/// (RFC 9110 §6.5.1).
fn without_forbidden_trailers(mut polled: Polled) -> Polled {
    if let Poll::Ready(Some(Ok(frame))) = &mut polled
        && let Some(fields) = frame.trailers_mut()
    {
        trailers::filter(fields);
    }
    polled
}
