//! The side of a transport that the task of the connection uses, besides reading requests.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use mesh_ingress_http1::Decoder;
use mesh_ingress_io::{Flushed, coop};
use tokio::task::coop::unconstrained;

use super::{BodyReader, BodyState, Expect100, Transport};
use crate::http1::connection::ConnectionEnd;
use crate::linger::Linger;

/// How much may wait of a protocol that is not agreed on yet.
const MAX_UNGUARDED: usize = 64 * 1024;

impl Transport {
    /// To be called first whenever the connection is polled.
    pub(in crate::http1) fn begin_poll(&mut self, cx: &mut Context<'_>) {
        self.driving = true;
        if !self.driver.will_wake(cx.waker()) {
            self.driver = cx.waker().clone();
            self.read_registered = false;
        }
        if self.reader.0.is_some() && self.conn.poll_read_ready(cx).is_ready() {
            self.reader.wake();
        }
    }

    /// To be called when the driver has looked at everything and waits.
    pub(in crate::http1) fn pause(&mut self) {
        self.driving = false;
    }

    /// Notes whether the socket will wake the driver after a read.
    pub(super) fn note_read<T>(&mut self, polled: &Poll<T>, cx: &Context<'_>) {
        self.read_registered = coop::is_registered(polled) && self.driver.will_wake(cx.waker());
    }

    /// Whether nothing has come since the driver's last read would have blocked. Then another read would
    /// be in vain, and costs several times as much as this.
    ///
    /// The socket is watched by the driver's own thread. So while the driver is polled, nobody is between
    /// the two steps of waking it, to mark the socket readable and to take its waker: as long as the
    /// socket is not marked, it has the waker.
    pub(super) fn is_known_empty(&self, cx: &Context<'_>) -> bool {
        self.read_registered && self.driver.will_wake(cx.waker()) && self.conn.is_known_empty()
    }

    /// Sends what the socket takes without asking the runtime.
    pub(in crate::http1) fn try_flush(&mut self) -> io::Result<Flushed> {
        self.write_buf.try_flush(&self.conn)
    }

    /// The service has dropped the body, or read it to its end.
    pub(in crate::http1) fn release_body(&mut self, left: BodyState) {
        self.body = left;
        self.reader = BodyReader::default();
        if !self.driving {
            self.driver.wake_by_ref();
        }
    }

    /// The final response begins. Returns whether another request may follow.
    pub(in crate::http1) fn begin_response(&mut self) -> bool {
        if self.expect == Expect100::Pending {
            self.expect = Expect100::Suppressed;
        }
        // The client may send the body it was not told to send, or not: what comes could be either.
        self.expect != Expect100::Suppressed
    }

    /// Whether bytes have come since this was last asked.
    pub(in crate::http1) fn take_progressed(&mut self) -> bool {
        std::mem::take(&mut self.progressed)
    }

    /// To be polled while the client waits for its response. Ready when there is nobody to answer.
    pub(in crate::http1) fn poll_waiting_client(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionEnd> {
        // A `100` that the socket did not take before.
        if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
            return Poll::Ready(ConnectionEnd::Failed(error.into()));
        }
        let gone = self.poll_client_gone(cx);
        self.pause();
        gone.map(|()| ConnectionEnd::Closed)
    }

    /// Closes the connection; ready when it may be dropped.
    pub(in crate::http1) fn poll_close(
        &mut self,
        linger: &mut Linger,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        self.pause();
        // Bytes read from now on are discarded and must not be taken for a part of a body.
        self.closed = true;
        self.reader.wake();
        // A request that was refused, or has begun to come behind the last one, may still be coming.
        // Bytes of it that reach a closed socket would reset it, with all that is still to be sent.
        let amid_request = self.body != BodyState::Complete || self.is_amid_request();
        let sending = (amid_request || self.refused.is_some()) && !self.eof;
        linger.poll(&mut self.conn, sending, cx)
    }

    /// Ready when the client has gone while it waits for its response.
    pub(in crate::http1) fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.body != BodyState::Complete {
            // The reader of the body finds out, if there is one.
            return match self.reader.0 {
                Some(_) => Poll::Pending,
                None => self.conn.poll_reset(cx).map(drop),
            };
        }
        loop {
            let max = match self.guard.is_undecided() {
                true => MAX_UNGUARDED,
                false => 1,
            };
            // The next request can wait. A client that has sent more than one request
            // and then its end has not gone.
            if self.read_buf.bytes().len() >= max || self.refused.is_some() || self.eof {
                return self.conn.poll_reset(cx).map(drop);
            }
            if self.is_known_empty(cx) {
                return Poll::Pending;
            }
            // First, so that no buffer is taken for nothing.
            let polled = self.conn.poll_read_ready(cx);
            self.note_read(&polled, cx);
            if ready!(polled).is_err() {
                return Poll::Ready(());
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.read_buf.bytes().is_empty() => return Poll::Ready(()),
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Reads and discards the rest of a body that nobody wants. Ready with `false` if it is too long
    /// or breaks off.
    pub(in crate::http1) fn poll_discard(
        &mut self,
        mut decoder: Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        // A client that waits for `100 Continue` may send the body or not.
        if self.expect != Expect100::None && self.read_buf.bytes().is_empty() {
            return Poll::Ready(false);
        }
        self.expect = Expect100::None;
        loop {
            if let Decoder::Length(left) = decoder
                && left > self.discard_budget as u64
            {
                return Poll::Ready(false);
            }
            match self.poll_frame(&mut decoder, cx) {
                Poll::Ready(None) => {
                    self.body = BodyState::Complete;
                    return Poll::Ready(true);
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len);
                    match self.discard_budget.checked_sub(bytes) {
                        Some(left) => self.discard_budget = left,
                        None => return Poll::Ready(false),
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                Poll::Pending => {
                    self.body = BodyState::Abandoned(decoder);
                    return Poll::Pending;
                }
            }
        }
    }

    /// The same with what has come already, where the response cannot wait. Returns whether that was
    /// all of the body.
    pub(in crate::http1) fn discard_now(&mut self, left: Decoder, cx: &mut Context<'_>) -> bool {
        let discarded = poll_fn(|cx| self.poll_discard(left, cx));
        let discarded = pin!(unconstrained(discarded)).poll(cx);
        discarded == Poll::Ready(true)
    }
}
