//! The client's end of a tunnel, before and after it is there.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Extensions;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::stream::Stream;
use crate::tunnel::End;

/// What a server other than hyper's puts into the extensions of an HTTP/1.1 request with `Upgrade`,
/// or of an extended `CONNECT` of HTTP/2, so that the request can become a tunnel. hyper's servers put an
/// [`OnUpgrade`](hyper::upgrade::OnUpgrade) there, which serves as well.
///
/// ```
/// use mesh_ingress_forward::OnSwitch;
///
/// # let mut request = http::Request::new(());
/// let (switch, on_switch) = OnSwitch::pair();
/// request.extensions_mut().insert(on_switch);
/// // When the response is 101 and has been written: `switch.complete(stream, early)`. When it is
/// // the success of a `CONNECT`: `switch.complete_stream(stream)`. On any other it is dropped.
/// # drop(switch);
/// ```
#[derive(Clone, Debug)]
pub struct OnSwitch(Arc<Mutex<oneshot::Receiver<Switched>>>);

/// Completes an [`OnSwitch`].
#[derive(Debug)]
pub struct Switch(oneshot::Sender<Switched>);

#[derive(Debug)]
struct Switched {
    client: ClientEnd,
    early: Bytes,
}

impl OnSwitch {
    /// One to keep, and one for the extensions of the request.
    #[must_use]
    pub fn pair() -> (Switch, Self) {
        let (sender, receiver) = oneshot::channel();
        (Switch(sender), Self(Arc::new(Mutex::new(receiver))))
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<Switched>> {
        let mut receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *receiver)
            .poll(cx)
            .map_err(|_| io::Error::other("the client has gone before it was switched"))
    }
}

impl Switch {
    /// The client has been sent the `101`: this is its connection, and what was read behind its
    /// request. If nobody wants it any more, the connection is reset.
    pub fn complete(self, stream: TcpStream, early: Bytes) {
        self.send(ClientEnd::Own(Stream::Plain(stream)), early);
    }

    /// The same for a stream of HTTP/2 that has been answered with success: what is read from it and
    /// written to it are octets of the tunnel. Dropped before it is shut down, it is to reset the
    /// stream.
    pub fn complete_stream(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        self.send(ClientEnd::Other(Box::new(stream)), Bytes::new());
    }

    fn send(self, client: ClientEnd, early: Bytes) {
        if let Err(mut switched) = self.0.send(Switched { client, early }) {
            switched.client.cut_off();
        }
    }
}

/// A client that is being told of the switch.
#[derive(Debug)]
pub(crate) enum Client {
    Hyper(OnUpgrade),
    Own(OnSwitch),
}

impl Client {
    /// What a server has left of it in a request.
    pub(crate) fn take(extensions: &mut Extensions) -> Option<Self> {
        let own = extensions.remove::<OnSwitch>().map(Self::Own);
        own.or_else(|| extensions.remove::<OnUpgrade>().map(Self::Hyper))
    }

    /// Its connection, and what has been read of it already.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(ClientEnd, Bytes)>> {
        Poll::Ready(Ok(match self {
            Self::Hyper(client) => {
                let client = ready!(Pin::new(client).poll(cx)).map_err(io::Error::other)?;
                (ClientEnd::Hyper(TokioIo::new(client)), Bytes::new())
            }
            Self::Own(client) => {
                let Switched { client, early } = ready!(client.poll(cx))?;
                (client, early)
            }
        }))
    }
}

/// A client that has been switched.
pub(crate) enum ClientEnd {
    /// Or a stream of HTTP/2. What it looks like when it is dropped is up to the server that has the
    /// socket, or to hyper, which ends a stream of HTTP/2 before it resets it.
    Hyper(TokioIo<Upgraded>),
    Own(Stream),
    /// A stream of HTTP/2 of a server other than hyper's.
    Other(Box<dyn ClientStream>),
}

/// What can be read from and written to.
pub(crate) trait ClientStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ClientStream for S {}

impl fmt::Debug for ClientEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hyper(_) => "Hyper",
            Self::Own(_) => "Own",
            Self::Other(_) => "Other",
        })
    }
}

impl End for ClientEnd {
    fn cut_off(&mut self) {
        if let Self::Own(stream) = self {
            stream.cut_off();
        }
    }

    fn poll_pass(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Own(stream) => stream.poll_pass(cx, octets),
            Self::Hyper(_) | Self::Other(_) => Pin::new(self).poll_write(cx, octets),
        }
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Own(stream) => stream.poll_more(cx),
            Self::Hyper(_) | Self::Other(_) => Poll::Ready(()),
        }
    }
}

impl AsyncRead for ClientEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Own(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Hyper(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Own(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(stream) => Pin::new(stream).poll_flush(cx),
            Self::Own(stream) => Pin::new(stream).poll_flush(cx),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Hyper(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Own(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
