//! The task that keeps one target fresh.

use std::sync::Arc;

use futures_util::future::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::builder::Settings;
use super::cache_entry::CacheEntry;
use super::client::DnsQuery;
use super::lookup::look_up;
use super::question::Question;
use super::schedule::MIN_REQUESTED_INTERVAL;

#[derive(Debug)]
pub(super) struct RefreshLoop<A> {
    pub(super) client: Arc<A>,
    pub(super) question: Arc<Question>,
    pub(super) settings: Arc<Settings>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) request_refresh: Arc<Notify>,
    pub(super) entry: CacheEntry,
}

impl<A: DnsQuery> RefreshLoop<A> {
    /// Looks up, waits, and looks up again, until it is aborted.
    pub(super) async fn run(mut self) {
        loop {
            // This lookup answers any refresh requested before it.
            let _ = self.request_refresh.notified().now_or_never();
            let asked = Instant::now();
            let next = self.refresh().await;
            if timeout_at(next, self.request_refresh.notified())
                .await
                .is_ok()
            {
                sleep_until(next.min(asked + MIN_REQUESTED_INTERVAL)).await;
            }
        }
    }

    async fn refresh(&mut self) -> Instant {
        // Fails only when the semaphore is closed, and it never is.
        let _permit = self.permits.acquire().await;
        let entry = &mut self.entry;
        let result = look_up(
            &*self.client,
            &self.question,
            &self.settings,
            &mut |found| {
                entry.found_partial(found, Instant::now());
            },
        )
        .await;
        let now = Instant::now();
        match result {
            Ok(found) => self.entry.found(found, now),
            Err(failure) => self.entry.failed(&failure, now),
        }
    }
}

#[cfg(test)]
mod tests;
