//! A timer that is set once and looked at often.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// Watches one deadline after the other for whoever polls it.
///
/// To put a timer into the runtime's wheel and take it out again for each request costs more than
/// the request's head does. Deadlines mostly move away: this one stays in the wheel where it is and
/// looks, when it is due, whether the deadline of now is due, too. It lives with a connection, so
/// that no request allocates one.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// The same as [`poll`](Self::poll), for whoever polls it from one task only: the timer knows
    /// whom to wake, and is left alone until it goes off.
    pub(crate) fn poll_in_task(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        match &self.sleep {
            Some(sleep) if sleep.deadline() <= due && !sleep.is_elapsed() => Poll::Pending,
            _ => self.poll(cx, due),
        }
    }

    /// Ready when `due` has come.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}
