//! The body of a response on an HTTP/1.1 connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use mesh_ingress_core::BoxError;
use mesh_ingress_http1::Decoder;
use mesh_ingress_io::LazyTimer;
#[cfg(target_os = "linux")]
use mesh_ingress_io::splice::{Pipe, SpliceError};
#[cfg(target_os = "linux")]
use tokio::net::TcpStream;

use super::Connection;
use super::error::ExchangeError;

/// The pool that a connection goes back to after a complete exchange.
pub(crate) trait ConnectionPool {
    /// The guard that each connection holds while it is open.
    type Guard;

    /// The upstream's address, for errors.
    fn addr(&self) -> SocketAddr;

    /// Takes a connection back.
    fn release(&self, connection: Box<Connection<Self::Guard>>);
}

/// A response body, and the connection that it reads from.
pub(crate) struct ResponseStream<P: ConnectionPool> {
    /// `None` when the body is complete, or has failed.
    connection: Option<Box<Connection<P::Guard>>>,
    /// The body was cut off.
    failed: bool,
    /// Bytes of it on their way to another socket.
    #[cfg(target_os = "linux")]
    pipe: Option<Box<Pipe>>,
    pool: Arc<P>,
}

/// Fewer bytes cost less to copy than to splice.
#[cfg(target_os = "linux")]
const MIN_SPLICED: u64 = 32 * 1024;

impl<P: ConnectionPool> ResponseStream<P> {
    /// The body behind the head that the connection has just read.
    pub(crate) fn new(connection: Box<Connection<P::Guard>>, pool: Arc<P>) -> Self {
        let mut stream = Self {
            connection: Some(connection),
            failed: false,
            #[cfg(target_os = "linux")]
            pipe: None,
            pool,
        };
        stream.release_if_complete();
        stream
    }

    /// The upstream's address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.pool.addr()
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        #[cfg(target_os = "linux")]
        if self.is_splicing() {
            let text = "bytes that come before are being spliced to a socket";
            let error = ExchangeError::Io(std::io::Error::other(text));
            return Poll::Ready(Some(Err(self.fail(error))));
        }
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        let frame = match ready!(connection.poll_body(cx)) {
            Some(Err(error)) => Some(Err(self.fail(error))),
            Some(Ok(frame)) => Some(Ok(frame)),
            None => None,
        };
        // Released with the last frame: the reader need not poll once more for that.
        self.release_if_complete();
        Poll::Ready(frame)
    }

    /// Whether the body may be spliced: it is large, has a known length and comes over plain TCP.
    pub(crate) fn is_spliceable(&self) -> bool {
        #[cfg(target_os = "linux")]
        if let Some(connection) = &self.connection {
            return connection.is_plain_tcp()
                && matches!(connection.body, Decoder::Length(left) if left >= MIN_SPLICED);
        }
        false
    }

    /// Splices as many bytes of the body to a socket as have come; none if the body cannot be
    /// spliced.
    ///
    /// # Errors
    /// Those of either socket.
    #[cfg(target_os = "linux")]
    pub(crate) fn poll_splice(
        &mut self,
        to: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, BoxError>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Ok(0));
        };
        let Some((from, left)) = connection.spliceable() else {
            return Poll::Ready(Ok(0));
        };
        let pipe = match &mut self.pipe {
            Some(pipe) => pipe,
            None if *left < MIN_SPLICED => return Poll::Ready(Ok(0)),
            none => match Pipe::take() {
                Ok(pipe) => none.insert(pipe),
                // Too many pipes, or no file descriptors left: the body is copied instead.
                Err(_) => return Poll::Ready(Ok(0)),
            },
        };
        let spliced = pipe.poll_splice(from, to, left, cx);
        let complete = *left == 0;
        connection.begin_splice();
        // Another body may use the pipe until more bytes come.
        if !pipe.is_filled()
            && let Some(pipe) = self.pipe.take()
        {
            pipe.put_back();
        }
        let error = match ready!(spliced) {
            Ok(spliced) => {
                if complete {
                    connection.end_splice();
                    self.release_if_complete();
                }
                return Poll::Ready(Ok(spliced));
            }
            Err(SpliceError::Ended) => ExchangeError::Incomplete,
            Err(SpliceError::Source(error)) => error.into(),
            Err(error) => {
                // The client's socket failed, not the upstream's.
                self.connection = None;
                self.failed = true;
                return Poll::Ready(Err(error.into()));
            }
        };
        Poll::Ready(Err(self.fail(error)))
    }

    /// Whether bytes wait for room in the socket they are spliced to.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_splicing(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.is_filled())
    }

    fn fail(&mut self, error: ExchangeError) -> BoxError {
        let error = error.into_error(self.pool.addr());
        let error = match self.connection.take() {
            Some(connection) => connection.tls().explain(error),
            None => error,
        };
        self.failed = true;
        error.into()
    }

    fn body(&self) -> Decoder {
        let connection = self.connection.as_ref();
        connection.map_or(Decoder::Complete, |connection| connection.body)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.connection.is_none() && !self.failed
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.body() {
            _ if self.failed => SizeHint::new(),
            Decoder::Complete => SizeHint::with_exact(0),
            Decoder::Length(left) => SizeHint::with_exact(left),
            Decoder::Chunked { .. } | Decoder::UntilClose => SizeHint::new(),
        }
    }

    /// The timer of the connection, as long as there is one.
    pub(crate) fn timer(&mut self) -> Option<&mut LazyTimer> {
        self.connection
            .as_mut()
            .map(|connection| connection.timer())
    }

    /// Gives the connection back once the body is complete.
    fn release_if_complete(&mut self) {
        if self.body().is_complete()
            && let Some(mut connection) = self.connection.take()
        {
            connection.finish();
            self.pool.release(connection);
        }
    }
}
