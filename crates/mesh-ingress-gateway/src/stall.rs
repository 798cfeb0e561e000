//! Clients that do not take what they are sent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Sleep;

/// How long a client may take nothing of a response: nginx's `send_timeout`.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Cuts a client off that has stopped reading; hyper would wait for ever.
#[derive(Debug, Default)]
pub(crate) struct Stall(Option<Pin<Box<Sleep>>>);

impl Stall {
    /// Turns a write that waits for too long into an error.
    pub(crate) fn check<T>(
        &mut self,
        wrote: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.moved();
            return wrote;
        }
        let stalled = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
        stalled.as_mut().poll(cx).map(|()| {
            let text = "the client takes nothing of its response";
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    /// The client has taken something.
    pub(crate) fn moved(&mut self) {
        if self.0.is_some() {
            self.0 = None;
        }
    }
}
