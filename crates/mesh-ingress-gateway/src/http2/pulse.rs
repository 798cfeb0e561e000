//! Whether there is still somebody at the other end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep};

/// A client that has said nothing for so long, or up to twice as long, is asked whether it is there.
const INTERVAL: Duration = Duration::from_secs(20);
/// And is gone if it says nothing for so long then.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Or for so long, if it may have much to read before it comes to the question.
const BEHIND: Duration = Duration::from_secs(300);
/// What that is: a client that answers in time reads so much meanwhile, whatever its network.
const MUCH: usize = 16 * 1024;

/// Beats from time to time. What is looked at then costs nothing in between, not even a look at the
/// clock.
#[derive(Debug)]
pub(super) struct Pulse {
    sleep: Pin<Box<Sleep>>,
    /// The timer has the waker of the task.
    set: bool,
    heard: bool,
    asked: bool,
    /// Octets written since the last beat, and before that since the one before.
    written: [usize; 2],
}

/// What it is time for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    /// To look after what may be stuck.
    Look,
    /// And to ask the client whether it is there.
    Ask,
    /// It is not.
    Gone,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(INTERVAL)),
            set: false,
            heard: false,
            asked: false,
            written: [0; 2],
        }
    }

    /// The client has said something.
    pub(super) fn hear(&mut self) {
        self.heard = true;
        // It may have been given much time to.
        if std::mem::take(&mut self.asked) {
            self.sleep.as_mut().reset(Instant::now() + INTERVAL);
            self.set = false;
        }
    }

    /// So many octets have been given to the socket. When the client reads them is not known.
    pub(super) fn wrote(&mut self, octets: usize) {
        self.written[0] = self.written[0].saturating_add(octets);
    }

    /// Ready from time to time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Beat> {
        if self.set && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        let polled = self.sleep.as_mut().poll(cx);
        // Without a budget it was not asked, and the task is woken at once.
        self.set = polled.is_pending() && has_budget_remaining();
        ready!(polled);
        let heard = std::mem::take(&mut self.heard);
        let [now, before] = self.written;
        let behind = now.saturating_add(before) > MUCH;
        self.written = [0, now];
        let (beat, after) = match (heard, self.asked) {
            (true, _) => (Beat::Look, INTERVAL),
            (false, false) if behind => (Beat::Ask, BEHIND),
            (false, false) => (Beat::Ask, TIMEOUT),
            (false, true) => (Beat::Gone, INTERVAL),
        };
        self.asked = beat == Beat::Ask;
        self.sleep.as_mut().reset(Instant::now() + after);
        Poll::Ready(beat)
    }
}
