//! Whether the client is still there.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_ingress_io::LazyTimer;
use tokio::time::Instant;

/// A client that has sent nothing for so long, or up to twice as long, gets a `PING`.
const INTERVAL: Duration = Duration::from_secs(20);
/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take if it may have much to read before the `PING`.
const TIMEOUT_BEHIND: Duration = Duration::from_secs(300);
/// What "much" is: a client that answers in time reads so much meanwhile, whatever its network.
const BEHIND: usize = 16 * 1024;

/// Fires from time to time. Whatever is looked after then costs nothing in between, not even a look at
/// the clock.
#[derive(Debug)]
pub(super) struct KeepAlive {
    timer: LazyTimer,
    next: Instant,
    /// The client has sent something since the timer fired.
    received: bool,
    /// A `PING` is not answered.
    pinged: bool,
    /// Bytes written since the timer fired, and in the interval before.
    written: [usize; 2],
}

/// The action that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tick {
    /// To look after what may be stuck.
    Check,
    /// And to send a `PING`.
    Ping,
    /// The client is gone.
    Gone,
}

impl KeepAlive {
    pub(super) fn new() -> Self {
        Self {
            timer: LazyTimer::default(),
            next: Instant::now() + INTERVAL,
            received: false,
            pinged: false,
            written: [0; 2],
        }
    }

    /// The client has sent something.
    pub(super) fn received(&mut self) {
        self.received = true;
        // It may have been given a long time to.
        if std::mem::take(&mut self.pinged) {
            self.next = Instant::now() + INTERVAL;
        }
    }

    /// So many bytes have been given to the socket. When the client reads them is not known.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.written[0] = self.written[0].saturating_add(bytes);
    }

    /// Ready from time to time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Tick> {
        ready!(self.timer.poll_in_task(cx, self.next));
        let received = std::mem::take(&mut self.received);
        let [now, before] = self.written;
        let is_behind = now.saturating_add(before) > BEHIND;
        self.written = [0, now];
        let (tick, after) = match (received, self.pinged) {
            (true, _) => (Tick::Check, INTERVAL),
            (false, false) if is_behind => (Tick::Ping, TIMEOUT_BEHIND),
            (false, false) => (Tick::Ping, TIMEOUT),
            (false, true) => (Tick::Gone, INTERVAL),
        };
        self.pinged = tick == Tick::Ping;
        self.next = Instant::now() + after;
        Poll::Ready(tick)
    }
}
