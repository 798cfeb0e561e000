//! What the task that serves a connection does with its wire, besides reading requests.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use mesh_ingress_http1::Decoder;
use mesh_ingress_io::Flushed;
use tokio::task::coop::{has_budget_remaining, unconstrained};

use super::{GoAhead, Reader, Upload, Wire};
use crate::http1::connection::Rested;
use crate::linger::Linger;

/// What may wait of a protocol that is not agreed on yet.
const MAX_UNSEEN: usize = 64 * 1024;

impl Wire {
    /// To be called first whenever the connection is driven.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        self.driving = true;
        if !self.driver.will_wake(cx.waker()) {
            self.driver = cx.waker().clone();
            self.awaited = false;
        }
        if self.reader.0.is_some() && self.stream.poll_read_ready(cx).is_ready() {
            self.reader.wake();
        }
    }

    /// Notes whether the driver waits for the socket, after that was asked for something to read.
    pub(super) fn asked(&mut self, in_vain: bool, cx: &Context<'_>) {
        // Without a budget it was not asked, and whoever did so is woken at once.
        self.awaited = in_vain && has_budget_remaining() && self.driver.will_wake(cx.waker());
    }

    /// Whether nothing has come since the driver asked in vain: it need not ask again, which costs
    /// several times as much.
    ///
    /// The socket is watched by the driver's own thread. So while the driver is polled, nobody is
    /// between the two steps of waking it, to show what has come and to take its waker: as long as
    /// nothing shows, the socket has the waker.
    pub(super) fn is_quiet(&self, cx: &Context<'_>) -> bool {
        if !(self.awaited && self.driver.will_wake(cx.waker())) {
            return false;
        }
        self.stream.is_known_empty()
    }

    /// Sends what the socket takes, whatever the runtime takes it to.
    pub(crate) fn send_now(&mut self) -> io::Result<Flushed> {
        self.outbox.try_flush(&self.stream)
    }

    /// To be called when the driver has looked at everything, and waits.
    pub(crate) fn pause(&mut self) {
        self.driving = false;
    }

    /// Nobody asks for more of the body.
    pub(crate) fn give_back(&mut self, left: Upload) {
        self.upload = left;
        self.reader = Reader::default();
        if !self.driving {
            self.driver.wake_by_ref();
        }
    }

    /// The final response begins. Tells whether the client may go on behind it.
    pub(crate) fn answered(&mut self) -> bool {
        if self.go_ahead == GoAhead::Owed {
            self.go_ahead = GoAhead::Withheld;
        }
        // It may send the body it was not told to send, or not: what comes could be either.
        self.go_ahead != GoAhead::Withheld
    }

    /// Whether something has come since this was last asked.
    pub(crate) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// What there is to do while the client waits for its response.
    pub(crate) fn poll_answering(&mut self, cx: &mut Context<'_>) -> Poll<Rested> {
        // A `100`, if that could not go out before.
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(Rested::Failed(error.into()));
        }
        let gone = self.poll_gone(cx);
        self.pause();
        gone.map(|()| Rested::Ended)
    }

    /// Writes what is to be written.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.outbox.is_empty() {
            true => Poll::Ready(Ok(())),
            false => super::poll_flush(&mut self.outbox, &mut self.stream, cx),
        }
    }

    /// Closes the connection; ready when it may be dropped.
    pub(crate) fn poll_close(&mut self, linger: &mut Linger, cx: &mut Context<'_>) -> Poll<()> {
        self.pause();
        // What is read from now on is scrap: nobody must take it for a part of a body.
        self.closed = true;
        self.reader.wake();
        // A request that was refused, or has begun to come behind the last one, may be going on: what
        // comes of it when the socket is closed would reset it, with all that is still to be sent.
        let amid_request = self.upload != Upload::Complete || self.is_amid_request();
        let sending = (amid_request || self.refused.is_some()) && !self.ended;
        linger.poll(&mut self.stream, sending, cx)
    }

    /// Looks for whether the client has gone while it waits for its response. Ready when there is
    /// nobody to answer.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.upload != Upload::Complete {
            // Whoever reads it finds out; but nobody may be reading.
            return match self.reader.0 {
                Some(_) => Poll::Pending,
                None => self.poll_reset(cx),
            };
        }
        loop {
            let most = match self.guard.is_undecided() {
                true => MAX_UNSEEN,
                false => 1,
            };
            // What it asks for next can wait. That it has said all it had to say does not mean that
            // it has gone, if that was more than was asked for.
            if self.inbox.bytes().len() >= most || self.refused.is_some() || self.ended {
                return self.poll_reset(cx);
            }
            if self.is_quiet(cx) {
                return Poll::Pending;
            }
            // First, so that no room is made for what does not come.
            let polled = self.stream.poll_read_ready(cx);
            self.asked(polled.is_pending(), cx);
            if ready!(polled).is_err() {
                return Poll::Ready(());
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) if self.inbox.bytes().is_empty() => return Poll::Ready(()),
                Ok(_) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Ready if the connection has been reset.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(drop)
    }

    /// Reads and drops what is left of a body nobody wants. Tells whether that was all of it: not if
    /// it is long, or breaks off.
    pub(crate) fn poll_drain(&mut self, mut decoder: Decoder, cx: &mut Context<'_>) -> Poll<bool> {
        // Whoever waits to be told to send may send it or not.
        if self.go_ahead != GoAhead::NotNeeded && self.inbox.bytes().is_empty() {
            return Poll::Ready(false);
        }
        self.go_ahead = GoAhead::NotNeeded;
        loop {
            if let Decoder::Length(left) = decoder
                && left > self.scrap as u64
            {
                return Poll::Ready(false);
            }
            match self.poll_piece(&mut decoder, cx) {
                Poll::Ready(None) => {
                    self.upload = Upload::Complete;
                    return Poll::Ready(true);
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let octets = frame.data_ref().map_or(0, Bytes::len);
                    match self.scrap.checked_sub(octets) {
                        Some(less) => self.scrap = less,
                        None => return Poll::Ready(false),
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(false),
                Poll::Pending => {
                    self.upload = Upload::Left(decoder);
                    return Poll::Pending;
                }
            }
        }
    }

    /// The same, as far as it is there, where the answer cannot wait for more, nor for others' turn.
    pub(crate) fn drain_now(&mut self, left: Decoder, cx: &mut Context<'_>) -> bool {
        let drained = poll_fn(|cx| self.poll_drain(left, cx));
        let drained = pin!(unconstrained(drained)).poll(cx);
        drained == Poll::Ready(true)
    }
}
