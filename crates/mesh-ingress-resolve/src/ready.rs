//! Waiting for the first answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use mesh_ingress_core::{Error, ErrorKind, Upstream};
use pin_project_lite::pin_project;
use tokio::runtime::Handle;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Sleep;

use crate::watch::Pick;
use crate::{ResolveError, Watch};

pin_project! {
    /// Waits for the first answer of a [`Watch`]. Made by [`Watch::ready`].
    ///
    /// Gives the answer at once if there is one; fails with `dns_timeout` when the resolver's
    /// resolve timeout passes without any.
    #[must_use = "futures do nothing unless polled"]
    pub struct Ready {
        #[pin]
        waiting: Waiting,
    }
}

pin_project! {
    /// [`Ready`], with what the layer needs to know besides.
    pub(crate) struct Waiting {
        watch: Watch,
        #[pin]
        changed: Option<OwnedNotified>,
        #[pin]
        timeout: Option<Sleep>,
    }
}

impl Ready {
    pub(crate) fn new(watch: Watch) -> Self {
        Self {
            waiting: Waiting::new(watch),
        }
    }
}

impl Waiting {
    pub(crate) fn new(watch: Watch) -> Self {
        Self {
            watch,
            changed: None,
            timeout: None,
        }
    }
}

impl Future for Ready {
    type Output = Result<Upstream, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().waiting.poll(cx).map_ok(|pick| pick.upstream)
    }
}

impl Future for Waiting {
    type Output = Result<Pick, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(answer) = this.watch.pick() {
                return Poll::Ready(answer);
            }
            match this.changed.as_mut().as_pin_mut() {
                None => {
                    this.watch.start()?;
                    let changed = Arc::clone(this.watch.cell().changed()).notified_owned();
                    this.changed.set(Some(changed));
                    // From here on no change is missed; one that came before is seen by looking
                    // once more.
                    if let Some(changed) = this.changed.as_mut().as_pin_mut() {
                        changed.enable();
                    }
                }
                Some(changed) => match changed.poll(cx) {
                    Poll::Ready(()) => this.changed.set(None),
                    Poll::Pending => break,
                },
            }
        }
        let allowed = this.watch.resolve_timeout();
        if this.timeout.is_none() {
            // Only a resolver of one's own gets here without a runtime. There is no clock then,
            // and it is for it to end the wait.
            if Handle::try_current().is_err() {
                return Poll::Pending;
            }
            this.timeout.set(Some(tokio::time::sleep(allowed)));
        }
        if let Some(timeout) = this.timeout.as_pin_mut() {
            ready!(timeout.poll(cx));
        }
        let service = this.watch.service();
        Poll::Ready(Err(ResolveError::new(
            ErrorKind::DnsTimeout,
            format!(
                "there is no answer for {service} after {allowed:?}: is the name server alive?"
            ),
        )
        .into()))
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ready").field(&self.waiting.watch).finish()
    }
}
