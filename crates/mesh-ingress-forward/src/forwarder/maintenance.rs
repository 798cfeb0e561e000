//! The only background task of a forwarder: it closes unused connections.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::exchange::Shared;

/// How often connections are checked: the precision of the idle timeout.
const PERIOD: Duration = Duration::from_secs(1);

/// Starts the task, unless it runs already or there is no runtime (yet).
pub(super) fn ensure_running(shared: &Arc<Shared>) {
    if shared.maintained.load(Ordering::Relaxed) {
        return;
    }
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    if shared.maintained.swap(true, Ordering::Relaxed) {
        return;
    }
    runtime.spawn(run(Running(Arc::downgrade(shared))));
}

/// Marks the task as ended when its runtime ends before the forwarder.
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
        // The task ends when the last handle of the forwarder is dropped.
        let Some(shared) = running.0.upgrade() else {
            return;
        };
        shared.pools.sweep(Instant::now());
    }
}
