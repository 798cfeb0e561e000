//! The task that keeps one target fresh.

use std::sync::Arc;

use futures_util::future::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::book::Book;
use super::builder::Settings;
use super::client::Ask;
use super::lookup::look_up;
use super::question::Question;
use super::schedule::NUDGE;

#[derive(Debug)]
pub(super) struct Refresher<A> {
    pub(super) asker: Arc<A>,
    pub(super) question: Arc<Question>,
    pub(super) settings: Arc<Settings>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) nudge: Arc<Notify>,
    pub(super) book: Book,
}

impl<A: Ask> Refresher<A> {
    /// Asks, waits, and asks again, until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            // A nudge from before this lookup is answered by it.
            let _ = self.nudge.notified().now_or_never();
            let asked = Instant::now();
            let next = self.refresh().await;
            if timeout_at(next, self.nudge.notified()).await.is_ok() {
                sleep_until(next.min(asked + NUDGE)).await;
            }
        }
    }

    async fn refresh(&mut self) -> Instant {
        // Fails only when closed, which nobody does.
        let _permit = self.permits.acquire().await;
        let book = &mut self.book;
        let result = look_up(&*self.asker, &self.question, &self.settings, &mut |found| {
            book.early(found, Instant::now());
        })
        .await;
        let now = Instant::now();
        match result {
            Ok(found) => self.book.found(found, now),
            Err(failure) => self.book.failed(&failure, now),
        }
    }
}

#[cfg(test)]
mod tests;
