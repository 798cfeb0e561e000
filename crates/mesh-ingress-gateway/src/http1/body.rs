//! The body of a client's request.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use mesh_ingress::BoxError;
use mesh_ingress_http1::Decoder;

use super::wire::{Lent, Shared, Upload};

/// Reads from the client's connection when it is polled, in whatever task that is. At most one of a
/// connection is not complete.
#[derive(Debug)]
pub(crate) struct RequestBody {
    decoder: Decoder,
    /// `None` when nothing is to come.
    wire: Option<Lent>,
}

impl RequestBody {
    pub(crate) fn new(wire: &mut Shared, decoder: Decoder) -> Self {
        Self {
            decoder,
            wire: (!decoder.is_complete()).then(|| wire.lend()),
        }
    }

    /// Nobody asks for more: what is left of it is the connection's again.
    fn give_back(&mut self) {
        let left = match self.decoder {
            Decoder::Complete => Upload::Complete,
            left => Upload::Left(left),
        };
        if let Some(wire) = self.wire.take() {
            wire.with(|wire| wire.give_back(left));
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let decoder = &mut this.decoder;
        let piece = match &this.wire {
            None if decoder.is_complete() => return Poll::Ready(None),
            None => None,
            Some(wire) => wire.with(|wire| wire.poll_piece_for(decoder, cx)),
        };
        let piece = match piece {
            Some(piece) => ready!(piece),
            None => {
                let gone = "the connection has ended before the body was complete";
                Some(Err(io::Error::new(io::ErrorKind::ConnectionAborted, gone)))
            }
        };
        // With its last piece, so that nobody has to ask once more.
        if decoder.is_complete() || !matches!(piece, Some(Ok(_))) {
            this.give_back();
        }
        Poll::Ready(piece.map(|piece| piece.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.decoder.is_complete()
    }

    fn size_hint(&self) -> SizeHint {
        match self.decoder {
            Decoder::Complete => SizeHint::with_exact(0),
            Decoder::Length(left) => SizeHint::with_exact(left),
            Decoder::Chunked { .. } | Decoder::UntilClose => SizeHint::new(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.give_back();
    }
}
