//! Those who wait for a connection, in the order they came.
//!
//! Every hand-over happens under one lock, and what is handed over travels in a channel of Tokio's,
//! whose own races are model-checked there. What is left to get right are two pairs of steps:
//!
//! * Whoever waits enters the queue *before* it looks at what is idle; whoever parks a connection
//!   does so *before* it looks at the queue.
//! * Whoever finds no room says that it waits *before* it looks at the room again; whoever leaves
//!   makes room *before* it looks for those who wait.
//!
//! Both with sequentially consistent counters, so that one of the two sees the other in whatever
//! order their steps fall. There is no model for Loom of that: it would be a copy of four lines
//! with the runtime, the sockets and the channel taken out of it, and prove the copy. Instead
//! `tests/churn.rs` runs the whole pool, on several threads and with all time-outs off, so that a
//! wake-up that is lost is a request that never ends, and `tests/races.rs` breaks it off
//! everywhere.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mesh_ingress_core::Error;
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::lease::Lease;

type Outcome = Result<Lease, Error>;
/// Resolves when it is one's turn.
pub(crate) type Turn = oneshot::Receiver<Outcome>;

/// Who waits, and the connections that are being opened for them.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Queue {
    /// First: it is all that most requests look at.
    len: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    waiters: VecDeque<Waiter>,
    dials: Vec<Dial>,
    /// Dials that are about to begin.
    reserved: usize,
    next_dial: u64,
    last_dial: Option<Instant>,
}

#[derive(Debug)]
struct Waiter {
    hand: oneshot::Sender<Outcome>,
    /// Where it runs: a connection opened for it belongs there.
    runtime: Handle,
    since: Instant,
}

#[derive(Debug)]
struct Dial {
    number: u64,
    task: Option<AbortHandle>,
}

impl Queue {
    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// Joins the end; `None` if more than `max` would then have no connection under way. `covered`
    /// says how many so many dials serve.
    pub(crate) fn join(
        &self,
        max: usize,
        covered: impl FnOnce(usize) -> usize,
        runtime: Handle,
    ) -> Option<Turn> {
        let mut state = self.state();
        state.forget_gone();
        let covered = covered(state.dialing());
        if (state.waiters.len() + 1).saturating_sub(covered) > max {
            self.store_len(&state);
            return None;
        }
        let (hand, receiver) = oneshot::channel();
        state.waiters.push_back(Waiter {
            hand,
            runtime,
            since: Instant::now(),
        });
        self.store_len(&state);
        Some(receiver)
    }

    /// Gives a connection to whoever waits longest, or back if nobody does.
    pub(crate) fn give(&self, mut lease: Lease) -> Result<(), Lease> {
        let mut state = self.state();
        let given = loop {
            let Some(waiter) = state.waiters.pop_front() else {
                break Err(lease);
            };
            lease = match waiter.hand.send(Ok(lease)) {
                Ok(()) => break Ok(()),
                Err(Ok(lease)) => lease,
                // Only what was sent comes back.
                Err(Err(_)) => break Ok(()),
            };
        };
        self.store_len(&state);
        given
    }

    /// Gives what `find` finds to those who wait, as long as there are both. What is found for
    /// somebody who goes at that moment comes back.
    pub(crate) fn serve(&self, mut find: impl FnMut() -> Option<Lease>) -> Option<Lease> {
        // The lock is not held while something is found: what is found useless is closed there,
        // and that looks at the queue.
        while !self.is_empty() {
            if let Err(lease) = self.give(find()?) {
                return Some(lease);
            }
        }
        None
    }

    /// A dial has failed, and with it whoever waits longest; or, where those who wait share what
    /// is opened, all who came before `since`, unless another dial may still serve them. Where it
    /// took as long as it may, that would be too late: they have waited for as long. One that had
    /// been called off was for nobody.
    pub(crate) fn fail(
        &self,
        dial: u64,
        since: Option<Instant>,
        overdue: bool,
        mut error: impl FnMut() -> Error,
    ) {
        let mut state = self.state();
        state.forget_gone();
        let counted = state.end(dial);
        if counted && (since.is_none() || overdue || state.dialing() == 0) {
            let mut failed = 0;
            while let Some(waiter) = state.waiters.front() {
                if failed > 0 && since.is_none_or(|since| waiter.since > since) {
                    break;
                }
                if let Some(waiter) = state.waiters.pop_front() {
                    let _ = waiter.hand.send(Err(error()));
                }
                failed += 1;
            }
        }
        self.store_len(&state);
    }

    /// Fails those who wait on a runtime on which nothing can be opened any more.
    pub(crate) fn forsake(&self, runtime: runtime::Id, mut error: impl FnMut() -> Error) {
        let mut state = self.state();
        let waiters = std::mem::take(&mut state.waiters);
        for waiter in waiters {
            if waiter.runtime.id() == runtime {
                let _ = waiter.hand.send(Err(error()));
            } else {
                state.waiters.push_back(waiter);
            }
        }
        self.store_len(&state);
    }

    /// Reserves a dial if fewer are under way than `wanted` of so many who wait. The runtime is
    /// that of the first who has none under way.
    pub(crate) fn reserve(&self, wanted: impl FnOnce(usize) -> usize) -> Option<Handle> {
        let mut state = self.state();
        state.forget_gone();
        self.store_len(&state);
        let dialing = state.dialing();
        if dialing >= wanted(state.waiters.len()) {
            return None;
        }
        let waiter = state.waiters.get(dialing).or(state.waiters.back())?;
        let runtime = waiter.runtime.clone();
        state.reserved += 1;
        Some(runtime)
    }

    /// Since when somebody waits for whom no dial is under way, if fewer are than `wanted` of so
    /// many who wait.
    pub(crate) fn short_since(&self, wanted: impl FnOnce(usize) -> usize) -> Option<Instant> {
        let mut state = self.state();
        state.forget_gone();
        self.store_len(&state);
        let dialing = state.dialing();
        if dialing >= wanted(state.waiters.len()) {
            return None;
        }
        let waiter = state.waiters.get(dialing).or(state.waiters.back())?;
        Some(waiter.since)
    }

    /// Since when the first of them waits.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.state().waiters.front().map(|waiter| waiter.since)
    }

    /// Gives a reservation up.
    pub(crate) fn unreserve(&self) {
        self.state().reserved -= 1;
    }

    /// Turns a reservation into a dial, which is to be started now.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.state();
        state.reserved -= 1;
        let number = state.next_dial;
        state.next_dial += 1;
        state.last_dial = Some(Instant::now());
        state.dials.push(Dial { number, task: None });
        number
    }

    /// The dial has been started. The lock was not held for that: on a runtime that shuts down a
    /// task ends as it is spawned.
    pub(crate) fn begun(&self, number: u64, task: AbortHandle) {
        let mut state = self.state();
        if let Some(dial) = state.dials.iter_mut().find(|dial| dial.number == number) {
            dial.task = Some(task);
        }
    }

    /// A dial has ended; whether it was still counted on.
    pub(crate) fn ended(&self, number: u64) -> bool {
        self.state().end(number)
    }

    /// Calls off dials that nobody waits for any more.
    pub(crate) fn call_off(&self, wanted: impl FnOnce(usize) -> usize) {
        let off: Vec<_> = {
            let mut state = self.state();
            state.forget_gone();
            self.store_len(&state);
            let wanted = wanted(state.waiters.len());
            let surplus = state.dialing().saturating_sub(wanted);
            // Not counted on from now: whoever comes next needs one of his own. Those that take
            // longest go first; they may be going nowhere.
            state
                .dials
                .extract_if(.., |dial| dial.task.is_some())
                .take(surplus)
                .filter_map(|dial| dial.task)
                .collect()
        };
        for task in off {
            task.abort();
        }
    }

    /// When the last dial began.
    pub(crate) fn last_dial(&self) -> Option<Instant> {
        self.state().last_dial
    }

    fn store_len(&self, state: &State) {
        self.len.store(state.waiters.len(), Ordering::SeqCst);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole at every point where a panic could strike.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn dialing(&self) -> usize {
        self.dials.len() + self.reserved
    }

    fn end(&mut self, number: u64) -> bool {
        let before = self.dials.len();
        self.dials.retain(|dial| dial.number != number);
        self.dials.len() < before
    }

    fn forget_gone(&mut self) {
        self.waiters.retain(|waiter| !waiter.hand.is_closed());
    }
}
