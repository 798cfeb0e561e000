//! Hand-over of a client's connection that switches to another protocol.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::Conn;

/// Resolves with the client's connection once the client has been told that the protocol is switched.
///
/// A server puts it into the extensions of an HTTP/1.1 request with `Upgrade`, or of an extended `CONNECT`
/// of HTTP/2 (RFC 8441), so that the service can make a tunnel of the request. It is to this server what
/// `hyper::upgrade::OnUpgrade` is to hyper's.
///
/// ```
/// use mesh_ingress_io::upgrade;
///
/// # let mut request = http::Request::new(());
/// let (sender, on_upgrade) = upgrade::channel();
/// request.extensions_mut().insert(on_upgrade);
/// // When the response is 101 and has been written, or is the success of a CONNECT:
/// // `sender.send(Upgraded::new(conn, early))`. On any other response the sender is dropped.
/// # drop(sender);
/// ```
#[derive(Clone, Debug)]
pub struct OnUpgrade(Arc<Mutex<oneshot::Receiver<Upgraded>>>);

/// Resolves an [`OnUpgrade`].
#[derive(Debug)]
pub struct UpgradeSender(oneshot::Sender<Upgraded>);

/// A connection that HTTP is not spoken on any more.
pub struct Upgraded {
    /// The connection, or the stream of an HTTP/2 connection. One that is dropped before it is shut down
    /// looks reset to the client if its [`Conn`] knows how.
    pub conn: Conn,
    /// Bytes that were read behind the request: the first of the other protocol.
    pub early: Bytes,
    /// Whatever the server wants to be dropped with the connection.
    guard: Option<Box<dyn Any + Send>>,
}

/// A sender for the server, and a receiver for the extensions of the request.
#[must_use]
pub fn channel() -> (UpgradeSender, OnUpgrade) {
    let (sender, receiver) = oneshot::channel();
    (
        UpgradeSender(sender),
        OnUpgrade(Arc::new(Mutex::new(receiver))),
    )
}

impl OnUpgrade {
    /// Ready when the client has been told, or will not be.
    ///
    /// # Errors
    /// When the connection ended, or the request was answered with anything but a switch.
    pub fn poll_upgraded(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Upgraded>> {
        let mut receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *receiver)
            .poll(cx)
            .map_err(|_| io::Error::other("the client has gone before the protocol was switched"))
    }
}

impl Future for OnUpgrade {
    type Output = io::Result<Upgraded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_upgraded(cx)
    }
}

impl UpgradeSender {
    /// The client has been told. If nobody waits for its connection any more, the connection is reset.
    pub fn send(self, upgraded: Upgraded) {
        if let Err(mut upgraded) = self.0.send(upgraded) {
            upgraded.conn.reset_on_drop();
        }
    }
}

impl Upgraded {
    /// A connection, and what has been read of it.
    #[must_use]
    pub fn new(conn: impl Into<Conn>, early: Bytes) -> Self {
        Self {
            conn: conn.into(),
            early,
            guard: None,
        }
    }

    /// Keeps `guard` for as long as the connection: a server that drains knows by it that the tunnel
    /// goes on.
    #[must_use]
    pub fn with_guard(mut self, guard: impl Any + Send) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// The connection, what has been read of it, and what is to be dropped with it.
    #[must_use]
    pub fn into_parts(self) -> (Conn, Bytes, Option<Box<dyn Any + Send>>) {
        (self.conn, self.early, self.guard)
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded")
            .field("conn", &self.conn)
            .field("early", &self.early.len())
            .finish_non_exhaustive()
    }
}
