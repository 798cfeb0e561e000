//! The requests that wait for a connection, in the order they came.
//!
//! Every hand-over happens under one lock, through a oneshot channel of tokio, whose own races are
//! model-checked there. Two pairs of steps remain to get right:
//!
//! * A request joins the queue *before* it looks for an idle connection; a connection is parked
//!   *before* the queue is checked.
//! * A request that finds no room registers as waiting *before* it checks the room again; a
//!   connection that closes makes room *before* it checks for waiting requests.
//!
//! Both use sequentially consistent counters, so that one of the two sees the other in whatever
//! order their steps happen. There is no loom model: it would be a copy of four lines without the
//! runtime, the sockets and the channel, and would prove the copy. Instead `tests/churn.rs` runs
//! the whole pool on several threads without timeouts, so that a lost wake-up is a request that
//! never ends, and `tests/races.rs` cancels at every step.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mesh_ingress_core::Error;
use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// A place in the queue: resolves when a `T` is handed over, or with the error of a dial.
pub(super) type Waiter<T> = oneshot::Receiver<Result<T, Error>>;

/// The requests that wait for a `T`, and the dials under way for them.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Queue<T> {
    /// First: most requests read nothing else.
    len: AtomicUsize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<Waiting<T>>,
    dials: Vec<Dial>,
    /// Dials that are about to begin.
    reserved: usize,
    next_dial: u64,
    last_dial: Option<Instant>,
}

#[derive(Debug)]
struct Waiting<T> {
    sender: oneshot::Sender<Result<T, Error>>,
    /// The runtime of the request: a connection that is opened for it belongs there.
    runtime: Handle,
    since: Instant,
}

#[derive(Debug)]
struct Dial {
    id: u64,
    task: Option<AbortHandle>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            len: AtomicUsize::new(0),
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                dials: Vec::new(),
                reserved: 0,
                next_dial: 0,
                last_dial: None,
            }),
        }
    }
}

impl<T> Queue<T> {
    /// Whether no request waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// Joins the end; `None` if more than `max` requests would then have no connection under way.
    /// `covered` says how many requests a number of dials serves.
    pub(super) fn join(
        &self,
        max: usize,
        covered: impl FnOnce(usize) -> usize,
        runtime: Handle,
    ) -> Option<Waiter<T>> {
        let mut state = self.state();
        state.remove_cancelled();
        let covered = covered(state.dialing());
        if (state.waiting.len() + 1).saturating_sub(covered) > max {
            self.store_len(&state);
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.push_back(Waiting {
            sender,
            runtime,
            since: Instant::now(),
        });
        self.store_len(&state);
        Some(receiver)
    }

    /// Hands an item to the request that waits longest, or gives it back if none waits.
    pub(super) fn offer(&self, mut item: T) -> Result<(), T> {
        let mut state = self.state();
        let offered = loop {
            let Some(first) = state.waiting.pop_front() else {
                break Err(item);
            };
            item = match first.sender.send(Ok(item)) {
                Ok(()) => break Ok(()),
                Err(Ok(item)) => item,
                // A failed send gives back the same value.
                Err(Err(_)) => break Ok(()),
            };
        };
        self.store_len(&state);
        offered
    }

    /// Hands over what `find` finds, as long as requests wait. Gives back an item whose request was
    /// cancelled at that moment.
    pub(super) fn serve(&self, mut find: impl FnMut() -> Option<T>) -> Option<T> {
        // `find` runs without the lock: it closes unusable connections, and that checks the queue.
        while !self.is_empty() {
            if let Err(item) = self.offer(find()?) {
                return Some(item);
            }
        }
        None
    }

    /// Fails the request that waits longest with the error of a dial. If one connection serves many
    /// requests, fails all that came before `since`, unless another dial is under way for them and
    /// this one did not time out: after a timeout, they have waited as long as they may. A dial
    /// that was aborted fails no request.
    pub(super) fn fail(
        &self,
        dial: u64,
        since: Option<Instant>,
        timed_out: bool,
        mut error: impl FnMut() -> Error,
    ) {
        let mut state = self.state();
        state.remove_cancelled();
        let counted = state.end_dial(dial);
        if counted && (since.is_none() || timed_out || state.dialing() == 0) {
            let mut failed = 0;
            while let Some(first) = state.waiting.front() {
                if failed > 0 && since.is_none_or(|since| first.since > since) {
                    break;
                }
                if let Some(first) = state.waiting.pop_front() {
                    let _ = first.sender.send(Err(error()));
                }
                failed += 1;
            }
        }
        self.store_len(&state);
    }

    /// Fails the requests on a runtime that is shutting down: no connection can be opened there.
    pub(super) fn fail_runtime(&self, runtime: runtime::Id, mut error: impl FnMut() -> Error) {
        let mut state = self.state();
        let waiting = std::mem::take(&mut state.waiting);
        for request in waiting {
            if request.runtime.id() == runtime {
                let _ = request.sender.send(Err(error()));
            } else {
                state.waiting.push_back(request);
            }
        }
        self.store_len(&state);
    }

    /// Reserves a dial if fewer are under way than `wanted` says for the number of waiting
    /// requests. The runtime is that of the first request without a dial.
    pub(super) fn reserve_dial(&self, wanted: impl FnOnce(usize) -> usize) -> Option<Handle> {
        let mut state = self.state();
        state.remove_cancelled();
        self.store_len(&state);
        let runtime = state.first_without_dial(wanted)?.runtime.clone();
        state.reserved += 1;
        Some(runtime)
    }

    /// Since when a request waits without a dial under way for it, if fewer are than `wanted` says
    /// for the number of waiting requests.
    pub(super) fn starved_since(&self, wanted: impl FnOnce(usize) -> usize) -> Option<Instant> {
        let mut state = self.state();
        state.remove_cancelled();
        self.store_len(&state);
        let request = state.first_without_dial(wanted)?;
        Some(request.since)
    }

    /// Since when the first request waits.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.state().waiting.front().map(|first| first.since)
    }

    pub(super) fn cancel_reservation(&self) {
        self.state().reserved -= 1;
    }

    /// Turns a reservation into a dial, whose task is to be spawned now.
    pub(super) fn begin_dial(&self) -> u64 {
        let mut state = self.state();
        state.reserved -= 1;
        let id = state.next_dial;
        state.next_dial += 1;
        state.last_dial = Some(Instant::now());
        state.dials.push(Dial { id, task: None });
        id
    }

    /// Sets the task of a dial. The lock is not held while it is spawned: on a runtime that shuts
    /// down, a task ends in `spawn`.
    pub(super) fn set_task(&self, id: u64, task: AbortHandle) {
        let mut state = self.state();
        if let Some(dial) = state.dials.iter_mut().find(|dial| dial.id == id) {
            dial.task = Some(task);
        }
    }

    /// A dial has ended. Returns whether it was still counted, and not aborted.
    pub(super) fn end_dial(&self, id: u64) -> bool {
        self.state().end_dial(id)
    }

    /// Aborts the dials beyond what `wanted` says for the number of waiting requests.
    pub(super) fn abort_surplus(&self, wanted: impl FnOnce(usize) -> usize) {
        let surplus: Vec<_> = {
            let mut state = self.state();
            state.remove_cancelled();
            self.store_len(&state);
            let wanted = wanted(state.waiting.len());
            let surplus = state.dialing().saturating_sub(wanted);
            // Not counted from now on: the next request needs a dial of its own. The oldest go
            // first; they may never connect.
            state
                .dials
                .extract_if(.., |dial| dial.task.is_some())
                .take(surplus)
                .filter_map(|dial| dial.task)
                .collect()
        };
        for task in surplus {
            task.abort();
        }
    }

    /// When the last dial began.
    pub(super) fn last_dial(&self) -> Option<Instant> {
        self.state().last_dial
    }

    fn store_len(&self, state: &State<T>) {
        self.len.store(state.waiting.len(), Ordering::SeqCst);
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Consistent wherever a panic could happen.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn dialing(&self) -> usize {
        self.dials.len() + self.reserved
    }

    /// The first request that has no dial, if there are fewer dials than `wanted`.
    fn first_without_dial(&self, wanted: impl FnOnce(usize) -> usize) -> Option<&Waiting<T>> {
        let dialing = self.dialing();
        if dialing >= wanted(self.waiting.len()) {
            return None;
        }
        self.waiting.get(dialing).or(self.waiting.back())
    }

    fn end_dial(&mut self, id: u64) -> bool {
        let before = self.dials.len();
        self.dials.retain(|dial| dial.id != id);
        self.dials.len() < before
    }

    fn remove_cancelled(&mut self) {
        self.waiting.retain(|request| !request.sender.is_closed());
    }
}
