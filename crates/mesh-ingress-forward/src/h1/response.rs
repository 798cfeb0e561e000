//! The body of a response on a connection of HTTP/1.1.

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

use super::{Connection, Fault};
use crate::pool::Pool;

/// A response body, and the connection that it drives to get it.
pub(crate) struct ResponseStream {
    /// `None` when the body is complete, or has failed.
    connection: Option<Box<Connection>>,
    /// It broke off: what has come is not all.
    failed: bool,
    /// Bytes of it on their way to another socket.
    #[cfg(target_os = "linux")]
    pipe: Option<Box<Pipe>>,
    pool: Arc<Pool>,
}

/// Fewer bytes cost less to copy than to splice.
#[cfg(target_os = "linux")]
const MIN_SPLICED: u64 = 32 * 1024;

impl ResponseStream {
    /// The body behind the head that has just come.
    pub(crate) fn new(connection: Box<Connection>, pool: Arc<Pool>) -> Self {
        let mut stream = Self {
            connection: Some(connection),
            failed: false,
            #[cfg(target_os = "linux")]
            pipe: None,
            pool,
        };
        stream.finish_if_complete();
        stream
    }

    /// Where it comes from.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.pool.addr
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        #[cfg(target_os = "linux")]
        if self.is_splicing() {
            let text = "bytes that come before are being spliced to a socket";
            let fault = Fault::Io(std::io::Error::other(text));
            return Poll::Ready(Some(Err(self.fail(fault))));
        }
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        let frame = match ready!(connection.poll_body(cx)) {
            Some(Err(fault)) => Some(Err(self.fail(fault))),
            Some(Ok(frame)) => Some(Ok(frame)),
            None => None,
        };
        // With its last piece, so that nobody has to ask once more.
        self.finish_if_complete();
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

    /// Splices bytes of the body to a socket, as many as there are; none where that cannot be done.
    ///
    /// # Errors
    /// Those of either side.
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
                // There are enough, or no file descriptors left: there is the other way.
                Err(_) => return Poll::Ready(Ok(0)),
            },
        };
        let moved = pipe.poll_splice(from, to, left, cx);
        let complete = *left == 0;
        connection.begin_splice();
        // Others can have it until something comes.
        if !pipe.is_filled()
            && let Some(pipe) = self.pipe.take()
        {
            pipe.put_back();
        }
        let fault = match ready!(moved) {
            Ok(moved) => {
                if complete {
                    connection.end_splice();
                    self.finish_if_complete();
                }
                return Poll::Ready(Ok(moved));
            }
            Err(SpliceError::Ended) => Fault::Incomplete,
            Err(SpliceError::Source(error)) => error.into(),
            Err(error) => {
                // Not the upstream's doing.
                self.connection = None;
                self.failed = true;
                return Poll::Ready(Err(error.into()));
            }
        };
        Poll::Ready(Err(self.fail(fault)))
    }

    /// Whether bytes wait for room in the socket they are spliced to.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_splicing(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.is_filled())
    }

    fn fail(&mut self, fault: Fault) -> BoxError {
        let error = fault.into_error(self.pool.addr);
        let error = match self.connection.take() {
            Some(connection) => connection.session().explain(error),
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

    /// Where the body is complete, the connection may be used again if the request is, too.
    fn finish_if_complete(&mut self) {
        if self.body().is_complete()
            && let Some(mut connection) = self.connection.take()
        {
            connection.finish();
            self.pool.release(connection);
        }
    }
}
