//! The body of a response on a connection of HTTP/1.1.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use mesh_ingress_core::BoxError;
use mesh_ingress_http1::Decoder;

use super::Connection;
use crate::alarm::Alarm;
use crate::pool::Pool;

/// A response body, and the connection that it drives to get it.
pub(crate) struct ResponseStream {
    /// `None` when the body is complete, or has failed.
    connection: Option<Box<Connection>>,
    /// It broke off: what has come is not all.
    failed: bool,
    pool: Arc<Pool>,
}

impl ResponseStream {
    /// The body behind the head that has just come.
    pub(crate) fn new(connection: Box<Connection>, pool: Arc<Pool>) -> Self {
        let mut stream = Self {
            connection: Some(connection),
            failed: false,
            pool,
        };
        stream.finish_if_complete();
        stream
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(None);
        };
        let frame = match ready!(connection.poll_body(cx)) {
            Some(Err(fault)) => {
                let error = fault.into_error(self.pool.upstream.addr());
                let error = connection.session().explain(error);
                self.connection = None;
                self.failed = true;
                Some(Err(error.into()))
            }
            Some(Ok(frame)) => Some(Ok(frame)),
            None => None,
        };
        // With its last piece, so that nobody has to ask once more.
        self.finish_if_complete();
        Poll::Ready(frame)
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
    pub(crate) fn alarm(&mut self) -> Option<&mut Alarm> {
        self.connection
            .as_mut()
            .map(|connection| connection.alarm())
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
