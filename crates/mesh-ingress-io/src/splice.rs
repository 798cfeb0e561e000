//! Bodies that pass from one socket to another in the kernel.

#[cfg(target_os = "linux")]
mod pipe;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::Body;
use mesh_ingress_core::{self as core, BoxError};
use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
pub use self::pipe::{Pipe, SpliceError};

/// A body that may be able to pass its bytes to a socket without copying them (`splice(2)`).
///
/// The methods' defaults say that it cannot. A server learns from the response that a body can: its
/// service inserts [`Splice`] into the extensions. A layer that wraps the body in a type of its own, because
/// it looks at the bytes, thereby switches splicing off.
pub trait SpliceBody: Body {
    /// Passes bytes on to `to`, as many as there are and `to` takes, and returns how many `to` has
    /// taken. `0` where that cannot be done at this moment: then frames are to be polled.
    ///
    /// # Errors
    /// Those of either side. The body is over then.
    fn poll_splice(
        self: Pin<&mut Self>,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, BoxError>> {
        let _ = (to, cx);
        Poll::Ready(Ok(0))
    }

    /// Whether bytes have left their source that wait for room in the socket they are spliced to.
    fn is_splicing(&self) -> bool {
        false
    }
}

/// Its bytes are in memory already.
impl SpliceBody for core::Body {}

/// A response extension: the response's body, of type `B`, can be spliced.
///
/// ```
/// use mesh_ingress_io::splice::{Splice, SpliceBody};
///
/// fn answer<B: SpliceBody + 'static>(body: B) -> http::Response<B> {
///     let mut response = http::Response::new(body);
///     response.extensions_mut().insert(Splice::<B>::new());
///     response
/// }
/// # let _ = answer::<mesh_ingress_core::Body>;
/// ```
pub struct Splice<B>(fn(Pin<&mut B>) -> Pin<&mut dyn Splicing>);

/// [`SpliceBody`] without the type of the body.
pub trait Splicing {
    /// See [`SpliceBody::poll_splice`].
    fn poll_splice(
        self: Pin<&mut Self>,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, BoxError>>;

    /// See [`SpliceBody::is_splicing`].
    fn is_splicing(&self) -> bool;
}

impl<B: SpliceBody> Splicing for B {
    fn poll_splice(
        self: Pin<&mut Self>,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, BoxError>> {
        SpliceBody::poll_splice(self, to, cx)
    }

    fn is_splicing(&self) -> bool {
        SpliceBody::is_splicing(self)
    }
}

impl<B: SpliceBody + 'static> Splice<B> {
    /// Says that it can.
    #[must_use]
    pub fn new() -> Self {
        Self(|body| body)
    }
}

impl<B: SpliceBody + 'static> Default for Splice<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Splice<B> {
    /// The body, to splice from.
    pub fn of<'b>(&self, body: Pin<&'b mut B>) -> Pin<&'b mut dyn Splicing> {
        (self.0)(body)
    }
}

impl<B> Clone for Splice<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Splice<B> {}

impl<B> fmt::Debug for Splice<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Splice")
    }
}
