//! How a client's connection is closed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_io::{Conn, coop};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long after the last response a client may go on sending what nobody wants.
const LINGER: Duration = Duration::from_secs(5);
/// How long a client that acknowledges what it reads may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// Closes a connection so that a client that is still sending gets its response first: closing a socket
/// with unread bytes resets it, and the reset overtakes the response (RFC 9112 §9.6).
#[derive(Debug, Default)]
pub(crate) struct Linger {
    /// The client has been sent a FIN.
    shut_down: bool,
    /// The client sends because it reads, as in HTTP/2.
    until_read: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Linger {
    /// For a client that sends while it reads, as HTTP/2 clients do: each `WINDOW_UPDATE` would reset a
    /// closed socket, with all that is still to be sent. Waits until the client has closed its end, or
    /// is silent for long.
    pub(crate) fn until_read() -> Self {
        Self {
            until_read: true,
            ..Self::default()
        }
    }

    /// Ready when the connection may be dropped. `sending` tells whether the client is known to be
    /// sending still.
    pub(crate) fn poll(
        &mut self,
        conn: &mut Conn,
        sending: bool,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if !self.shut_down {
            if !sending {
                let readable = conn.poll_read_ready(cx);
                if readable.is_pending() {
                    return ready_if_registered(&readable);
                }
            }
            if ready!(Pin::new(&mut *conn).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            self.shut_down = true;
            if sending {
                self.arm();
            }
        }
        self.poll_discard(conn, cx)
    }

    fn arm(&mut self) -> &mut Pin<Box<Sleep>> {
        let time = if self.until_read { SILENCE } else { LINGER };
        self.timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(time)))
    }

    /// Reads and discards what the client is still sending, until it ends or its time is up.
    fn poll_discard(&mut self, conn: &mut Conn, cx: &mut Context<'_>) -> Poll<()> {
        let mut discarded = [0; 4096];
        loop {
            let mut discarded = ReadBuf::new(&mut discarded);
            let polled = Pin::new(&mut *conn).poll_read(cx, &mut discarded);
            match polled {
                Poll::Ready(Ok(())) if !discarded.filled().is_empty() => {
                    if self.until_read {
                        self.arm().as_mut().reset(Instant::now() + SILENCE);
                    } else if self.arm().as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    return match &mut self.timer {
                        Some(timer) => timer.as_mut().poll(cx),
                        None => ready_if_registered(&polled),
                    };
                }
            }
        }
    }
}

/// Where nothing is under way and nothing can be read, there is nothing to wait for: dropping the socket
/// tells the client. But the read may only have been refused by the task's budget.
fn ready_if_registered<T>(pending: &Poll<T>) -> Poll<()> {
    match coop::is_registered(pending) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    }
}
