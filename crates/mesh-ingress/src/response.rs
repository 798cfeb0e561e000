//! A response's way back to the client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::Response;
use mesh_ingress_core::{Error, ErrorKind, ServiceRef, Verdict};
use mesh_ingress_forward::ResponseBody;
use mesh_ingress_headers::Inventory;
use mesh_ingress_vhost::{PublicIdentity, restore};

use crate::table::{Reach, Target};

/// What is remembered of a request for its response.
pub(crate) struct Sent {
    pub(crate) target: Arc<Target>,
    /// Where it was sent.
    pub(crate) reach: Arc<Reach>,
    /// What the client called this gateway, if the upstream was told something else.
    pub(crate) public: Option<PublicIdentity>,
}

/// How the responses of one backend came: see [`MeshIngress::verdicts`](crate::MeshIngress::verdicts).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TargetVerdicts {
    /// The name of the route.
    pub route: Arc<str>,
    /// The Service.
    pub service: ServiceRef,
    /// Responses that came through the mesh.
    pub meshed: u64,
    /// Responses that came past the mesh.
    pub passthrough: u64,
    /// Responses that bear no mark of either way.
    pub unknown: u64,
}

/// Counts of one backend.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Verdicts {
    meshed: AtomicU64,
    /// The last response was meshed.
    was_meshed: AtomicBool,
    passthrough: AtomicU64,
    unknown: AtomicU64,
}

/// A response that came past the mesh where one through it is demanded.
#[derive(Debug, thiserror::Error)]
#[error(
    "a response of {service} should have come through the mesh and was found to be {verdict}: \
     does its pod still have a sidecar, and does a virtual host of the mesh list {host:?}?"
)]
struct LeftTheMesh {
    service: ServiceRef,
    verdict: &'static str,
    host: String,
}

impl Sent {
    /// Nobody answers at the address: the resolver may know a better one by now.
    pub(crate) fn failed(&self, error: &Error) {
        if matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionTimeout
                | ErrorKind::DestinationIpUnroutable
        ) {
            self.target.watch.report_failure(self.addr());
        }
    }

    /// Takes the mesh's verdict, puts the public identity back and cleans the fields that are not
    /// the client's business.
    ///
    /// # Errors
    /// When the response came past the mesh and that is not allowed.
    pub(crate) fn succeeded(&self, response: &mut Response<ResponseBody>) -> Result<(), Error> {
        let settings = &self.target.settings;
        if self.reach.is_spread {
            self.target.watch.report_success(self.addr());
        }
        let fields = response.body().fields().copied();
        let mut fields = fields.unwrap_or_else(|| Inventory::of(response.headers()));
        let verdict = settings.verdict.judge_with(response.headers(), &fields);
        let left = self.target.verdicts.count(verdict);
        if left {
            tracing::warn!(
                route = &*self.target.route,
                service = %self.target.watch.service(),
                %verdict,
                "a response that should have come through the mesh did not"
            );
        }
        // What bears no mark is held against a backend only if its responses bore one before.
        let refused = match verdict {
            Verdict::Meshed => false,
            Verdict::Passthrough => true,
            _ => self.target.verdicts.ever_meshed(),
        };
        if settings.require_mesh && refused {
            let host = self.target.vhost.as_ref().map(ToString::to_string);
            let left = LeftTheMesh {
                service: self.target.watch.service().clone(),
                verdict: verdict.as_str(),
                host: host.unwrap_or_default(),
            };
            return Err(Error::new(ErrorKind::DestinationUnavailable, left)
                .with_status(http::StatusCode::BAD_GATEWAY));
        }
        let status = response.status();
        let headers = response.headers_mut();
        if fields.may_name_hosts()
            && let (Some(public), Some(said)) = (&self.public, &self.target.vhost)
        {
            restore(
                headers,
                said,
                self.reach.pool.upstream().addresses(),
                public,
            );
        }
        settings.response.apply_with(status, headers, &mut fields);
        if settings.tell_verdict {
            response.extensions_mut().insert(verdict);
        }
        Ok(())
    }

    fn addr(&self) -> SocketAddr {
        self.reach.pool.upstream().addr()
    }
}

impl Verdicts {
    /// Counts one; whether it is the first that did not come through the mesh after one that did.
    fn count(&self, verdict: Verdict) -> bool {
        let counter = match verdict {
            Verdict::Meshed => &self.meshed,
            Verdict::Passthrough => &self.passthrough,
            _ => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let meshed = verdict == Verdict::Meshed;
        // Written only when it changes: the flag is read by every worker.
        let was = self.was_meshed.load(Ordering::Relaxed);
        was != meshed && self.was_meshed.swap(meshed, Ordering::Relaxed) && !meshed
    }

    fn ever_meshed(&self) -> bool {
        self.meshed.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn snapshot(&self, target: &Target) -> TargetVerdicts {
        TargetVerdicts {
            route: Arc::clone(&target.route),
            service: target.watch.service().clone(),
            meshed: self.meshed.load(Ordering::Relaxed),
            passthrough: self.passthrough.load(Ordering::Relaxed),
            unknown: self.unknown.load(Ordering::Relaxed),
        }
    }
}
