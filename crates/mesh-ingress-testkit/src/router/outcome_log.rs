//! The log of outcomes, one for each request.

use std::net::SocketAddr;

use http::header::HOST;
use http::{Method, Request};
use mesh_ingress_core::ServiceRef;
use tokio::sync::watch;

use super::registry::split_port;
use crate::server::Connection;

/// How a mesh router handled one request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The Service it went to; `None` if it went to none.
    pub service: Option<ServiceRef>,
    /// `:authority` or `Host` as written, with its port; `None` without either.
    pub authority: Option<String>,
    /// The address the client connected to.
    pub connected_to: SocketAddr,
    /// The connection it came on, counted from 1 for each listener.
    pub connection: u64,
    /// The method.
    pub method: Method,
    /// Path and query as sent.
    pub target: String,
    /// Where it was sent.
    pub verdict: Verdict,
}

/// Whether the mesh handled a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It went to a Service of the mesh.
    Meshed,
    /// It was let through past the mesh: no mTLS, no policy, no telemetry of a Service.
    Passthrough,
    /// It was refused.
    Blocked,
}

#[derive(Debug)]
pub(super) struct OutcomeLog(watch::Sender<Vec<Outcome>>);

impl Outcome {
    pub(super) fn of<B>(
        connection: &Connection,
        request: &Request<B>,
        service: Option<ServiceRef>,
        verdict: Verdict,
    ) -> Self {
        let target = request.uri().path_and_query();
        Self {
            service,
            authority: authority(request).map(str::to_owned),
            connected_to: connection.local_addr,
            connection: connection.id,
            method: request.method().clone(),
            target: target.map_or_else(|| request.uri().to_string(), ToString::to_string),
            verdict,
        }
    }

    /// The host of the authority, without the port.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.authority.as_deref().map(|a| split_port(a).0)
    }

    /// The port of the authority, if it has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        split_port(self.authority.as_deref()?).1?.parse().ok()
    }
}

impl OutcomeLog {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Vec::new()))
    }

    pub(super) fn enter(&self, outcome: Outcome) {
        self.0.send_modify(|outcomes| outcomes.push(outcome));
    }

    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        self.0.borrow().clone()
    }

    pub(super) fn clear(&self) {
        self.0.send_modify(Vec::clear);
    }

    pub(super) fn count(&self, counts: impl Fn(&Outcome) -> bool) -> u64 {
        self.0.borrow().iter().filter(|o| counts(o)).count() as u64
    }

    pub(super) async fn wait_for(&self, count: usize) {
        let mut changes = self.0.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = changes.wait_for(|outcomes| outcomes.len() >= count).await;
    }
}

/// `:authority` (or that of an absolute target), else `Host`.
pub(super) fn authority<B>(request: &Request<B>) -> Option<&str> {
    match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(HOST)?.to_str().ok(),
    }
}

/// The methods of a router that read its log, the same for each router.
macro_rules! outcome_methods {
    () => {
        /// How many requests went to a Service through the mesh.
        #[must_use]
        pub fn meshed(&self, service: &ServiceRef) -> u64 {
            self.log().count(|outcome| {
                outcome.verdict == Verdict::Meshed && outcome.service.as_ref() == Some(service)
            })
        }

        /// How many requests were let through past the mesh.
        #[must_use]
        pub fn passthrough(&self) -> u64 {
            self.log()
                .count(|outcome| outcome.verdict == Verdict::Passthrough)
        }

        /// How many requests were refused.
        #[must_use]
        pub fn blocked(&self) -> u64 {
            self.log()
                .count(|outcome| outcome.verdict == Verdict::Blocked)
        }

        /// The outcome of each request, in order.
        #[must_use]
        pub fn outcomes(&self) -> Vec<Outcome> {
            self.log().outcomes()
        }

        /// Forgets the outcomes so far; all counts begin again.
        pub fn clear_outcomes(&self) {
            self.log().clear();
        }

        /// Waits until at least `count` outcomes are there since the start or the last
        /// [`clear_outcomes`](Self::clear_outcomes). An outcome is entered when it is decided,
        /// before the request is forwarded.
        pub async fn wait_for_outcomes(&self, count: usize) {
            self.log().wait_for(count).await;
        }
    };
}
pub(super) use outcome_methods;
