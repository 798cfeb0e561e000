//! The one task of a forwarder: it closes what nobody uses any more.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::forwarder::Shared;

/// How often connections are looked at: idle time-outs are this precise.
const PERIOD: Duration = Duration::from_secs(1);

/// Starts the task unless it runs, or there is no runtime to run it on (yet).
pub(crate) fn ensure(running: &AtomicBool, shared: impl FnOnce() -> Weak<Shared>) {
    if running.load(Ordering::Relaxed) {
        return;
    }
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    if running.swap(true, Ordering::Relaxed) {
        return;
    }
    runtime.spawn(run(Running(shared())));
}

/// Says that the task has ended, were its runtime to end before the forwarder.
struct Running(Weak<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.maintained.store(false, Ordering::Relaxed);
        }
    }
}

async fn run(running: Running) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Holds the forwarder only while it works: it ends with its last handle.
        let Some(shared) = running.0.upgrade() else {
            return;
        };
        shared.sweep(Instant::now());
    }
}
