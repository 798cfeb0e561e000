//! A timer that is set once and looked at often.

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::coop::has_budget_remaining;
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
    /// Has the processor fetch what a look at the timer takes: whoever is going to take that look soon
    /// does not wait for it then.
    #[inline]
    pub(crate) fn fetch(&self) {
        let look = |sleep: &Pin<Box<Sleep>>| (sleep.deadline(), sleep.is_elapsed());
        black_box(self.sleep.as_ref().map(look));
    }

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
        let sleep = self.sleep.take();
        let mut sleep = sleep.unwrap_or_else(|| Box::pin(tokio::time::sleep_until(due)));
        if due < sleep.deadline() {
            sleep.as_mut().reset(due);
        }
        loop {
            if sleep.as_mut().poll(cx).is_pending() {
                // Without a budget it was not asked, and does not know whom to wake: another will. The
                // task is woken at once.
                self.sleep = has_budget_remaining().then_some(sleep);
                return Poll::Pending;
            }
            if due <= Instant::now() {
                self.sleep = Some(sleep);
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    /// A task that has had its share is not listened to by the runtime; it must not take that for a
    /// timer that was set.
    #[tokio::test(start_paused = true)]
    async fn who_has_had_its_share_is_woken_on_time_all_the_same() {
        let (mut alarm, due) = (Alarm::default(), Instant::now() + Duration::from_secs(1));
        let mut spent = false;
        poll_fn(|cx| {
            while !spent && has_budget_remaining() {
                let _ = std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx);
            }
            spent = true;
            alarm.poll_in_task(cx, due)
        })
        .await;
        assert_eq!(Instant::now(), due);
    }
}
