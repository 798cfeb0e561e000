//! An event that a test makes happen.

use tokio::sync::watch;

/// Holds something back until the test opens it, in place of sleeping.
///
/// Clones are the same gate.
///
/// ```
/// use mesh_ingress_testkit::Gate;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let gate = Gate::new();
/// let waiter = tokio::spawn({
///     let gate = gate.clone();
///     async move { gate.opened().await }
/// });
/// assert!(!waiter.is_finished());
/// gate.open();
/// waiter.await.unwrap();
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Opens it, for present and later waiters.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Closes it for later waiters.
    pub fn close(&self) {
        self.0.send_replace(false);
    }

    /// Whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}
