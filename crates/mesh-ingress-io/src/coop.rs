//! tokio's cooperative budget.

use std::task::Poll;

use tokio::task::coop::has_budget_remaining;

/// Whether a pending poll of one of tokio's resources has registered the task's waker with it.
///
/// A task that has used up its budget gets `Pending` from every resource of the runtime, is woken at
/// once, and has registered nothing. A caller that remembers "I am registered, so I need not poll
/// again" must not conclude that from such an answer.
///
/// ```
/// use std::task::Poll;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let polled: Poll<()> = Poll::Pending; // of a timer or a socket
/// assert!(mesh_ingress_io::coop::is_registered(&polled));
/// assert!(!mesh_ingress_io::coop::is_registered(&Poll::Ready(())));
/// # });
/// ```
#[inline]
pub fn is_registered<T>(polled: &Poll<T>) -> bool {
    polled.is_pending() && has_budget_remaining()
}
