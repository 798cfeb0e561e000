//! How a client's connection is closed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_io::Conn;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep};

/// How long, after the last response, a client may go on sending what nobody wants.
const LINGER: Duration = Duration::from_secs(5);
/// How long a client may say nothing that is still to read what it was sent, and says so.
const SILENCE: Duration = Duration::from_secs(30);

/// Closes a connection so that a client that is still sending gets its response first: closing a
/// socket with unread bytes resets it, and the reset overtakes the response (RFC 9112 §9.6).
#[derive(Debug, Default)]
pub(crate) struct Linger {
    /// The client has been told that nothing follows.
    told: bool,
    /// What it sends is about what it has read.
    reads: bool,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl Linger {
    /// For a client that speaks while it reads, as clients of HTTP/2 do: each window that it opens
    /// would reset a socket that is closed, with all that is still to be sent to it. It is waited
    /// for until it has closed its end, or says nothing for long.
    pub(crate) fn until_read() -> Self {
        Self {
            reads: true,
            ..Self::default()
        }
    }

    /// Ready when the socket may be dropped. `sending` tells whether the client is known to be
    /// sending still.
    pub(crate) fn poll(
        &mut self,
        stream: &mut Conn,
        sending: bool,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if !self.told {
            if !sending && stream.poll_read_ready(cx).is_pending() {
                return not_now_or_nothing();
            }
            if ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            self.told = true;
            if sending {
                self.begin();
            }
        }
        self.poll_scrap(stream, cx)
    }

    fn begin(&mut self) -> &mut Pin<Box<Sleep>> {
        let time = if self.reads { SILENCE } else { LINGER };
        self.lingering
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(time)))
    }

    /// Reads and drops what the client is still sending, until it ends or its time is up.
    fn poll_scrap(&mut self, stream: &mut Conn, cx: &mut Context<'_>) -> Poll<()> {
        let mut scrap = [0; 4096];
        loop {
            let mut scrap = ReadBuf::new(&mut scrap);
            match Pin::new(&mut *stream).poll_read(cx, &mut scrap) {
                Poll::Ready(Ok(())) if !scrap.filled().is_empty() => {
                    if self.reads {
                        self.begin().as_mut().reset(Instant::now() + SILENCE);
                    } else if self.begin().as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    return match &mut self.lingering {
                        Some(lingering) => lingering.as_mut().poll(cx),
                        None => not_now_or_nothing(),
                    };
                }
            }
        }
    }
}

/// What it means that nothing can be read: where nothing is under way there is nothing to wait for,
/// and to drop the socket tells the end. But it may only be others' turn.
fn not_now_or_nothing() -> Poll<()> {
    match has_budget_remaining() {
        true => Poll::Ready(()),
        false => Poll::Pending,
    }
}
