//! A timer that is set once and looked at often.

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep};

use crate::coop;

/// Watches one deadline after the other.
///
/// To put a timer into the runtime's wheel and take it out again for each request costs a twentieth of
/// what a small request does. Deadlines mostly move away: this timer stays in the wheel where it is, and
/// when it fires it looks whether the present deadline has come. It lives with a connection, so that
/// no request allocates one.
///
/// ```
/// use std::future::poll_fn;
/// use std::time::Duration;
/// use mesh_ingress_io::LazyTimer;
/// use tokio::time::Instant;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let mut timer = LazyTimer::default();
/// let deadline = Instant::now() + Duration::from_millis(1);
/// poll_fn(|cx| timer.poll(cx, deadline)).await;
/// assert!(Instant::now() >= deadline);
/// # });
/// ```
#[derive(Debug, Default)]
pub struct LazyTimer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl LazyTimer {
    /// Has the processor load what a poll of the timer reads, so that a poll soon after does not wait
    /// for it.
    #[inline]
    pub fn prefetch(&self) {
        let look = |sleep: &Pin<Box<Sleep>>| (sleep.deadline(), sleep.is_elapsed());
        black_box(self.sleep.as_ref().map(look));
    }

    /// Whether it is in the runtime's wheel and has not fired.
    #[inline]
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.sleep.as_ref().is_some_and(|sleep| !sleep.is_elapsed())
    }

    /// Whether it is armed and fires no later than the deadline.
    #[inline]
    #[must_use]
    pub fn is_armed_before(&self, deadline: Instant) -> bool {
        let sleep = self.sleep.as_ref();
        sleep.is_some_and(|sleep| sleep.deadline() <= deadline && !sleep.is_elapsed())
    }

    /// The same as [`poll`](Self::poll) for a timer that is only ever polled by one task: as long as
    /// it has not fired, its waker need not be registered again.
    pub fn poll_in_task(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        match self.is_armed_before(deadline) {
            true => Poll::Pending,
            false => self.poll(cx, deadline),
        }
    }

    /// Ready when the deadline has come.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self.sleep.take();
        let mut sleep = sleep.unwrap_or_else(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        loop {
            let polled = sleep.as_mut().poll(cx);
            if polled.is_pending() {
                // A timer without a waker would be taken for armed.
                self.sleep = coop::is_registered(&polled).then_some(sleep);
                return Poll::Pending;
            }
            if deadline <= Instant::now() {
                self.sleep = Some(sleep);
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::task::coop::has_budget_remaining;

    use super::*;

    /// A timer polled without budget registers no waker. It must not be taken for armed.
    #[tokio::test(start_paused = true)]
    async fn a_timer_polled_without_budget_still_fires() {
        let (mut timer, due) = (
            LazyTimer::default(),
            Instant::now() + Duration::from_secs(1),
        );
        let mut spent = false;
        poll_fn(|cx| {
            while !spent && has_budget_remaining() {
                let _ = std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx);
            }
            spent = true;
            timer.poll_in_task(cx, due)
        })
        .await;
        assert_eq!(Instant::now(), due);
    }
}
