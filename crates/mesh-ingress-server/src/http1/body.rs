//! The body of an HTTP/1 request.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use mesh_ingress_core::BoxError;
use mesh_ingress_http1::Decoder;

use super::transport::{BodyState, SharedTransport, TransportHandle};

/// Reads from the client's connection when it is polled, in whatever task that is. At most one body of a
/// connection is incomplete.
#[derive(Debug)]
pub(crate) struct Http1Body {
    decoder: Decoder,
    /// `None` when nothing is to come.
    transport: Option<TransportHandle>,
}

impl Http1Body {
    pub(super) fn new(transport: &mut SharedTransport, decoder: Decoder) -> Self {
        Self {
            decoder,
            transport: (!decoder.is_complete()).then(|| transport.handle()),
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let decoder = &mut self.decoder;
        let frame = match &self.transport {
            None if decoder.is_complete() => return Poll::Ready(None),
            None => None,
            Some(transport) => transport.with(|it| it.poll_frame_of_service(decoder, cx)),
        };
        let frame = match frame {
            Some(frame) => ready!(frame),
            None => {
                let gone = "the connection has ended before the body was complete";
                Some(Err(io::Error::new(io::ErrorKind::ConnectionAborted, gone)))
            }
        };
        // With the last frame, so that the service need not poll once more.
        if decoder.is_complete() || !matches!(frame, Some(Ok(_))) {
            self.release();
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.decoder.is_complete()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        match self.decoder {
            Decoder::Complete => SizeHint::with_exact(0),
            Decoder::Length(left) => SizeHint::with_exact(left),
            Decoder::Chunked { .. } | Decoder::UntilClose => SizeHint::new(),
        }
    }

    /// Gives what is left of the body back to the connection.
    fn release(&mut self) {
        let left = match self.decoder {
            Decoder::Complete => BodyState::Complete,
            left => BodyState::Abandoned(left),
        };
        if let Some(transport) = self.transport.take() {
            transport.with(|it| it.release_body(left));
        }
    }
}

impl Drop for Http1Body {
    fn drop(&mut self) {
        self.release();
    }
}
