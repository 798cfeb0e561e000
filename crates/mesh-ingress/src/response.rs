//! The path of a response back to the client.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::Response;
use mesh_ingress_core::{Error, ErrorKind, ServiceRef, Verdict};
use mesh_ingress_forward::ResponseBody;
use mesh_ingress_headers::HeaderPresence;
use mesh_ingress_vhost::{PublicIdentity, restore};

use crate::table::{ResolvedPool, Target};

/// What the gateway keeps of a request until its response comes.
pub(crate) struct ResponseContext {
    pub(crate) target: Arc<Target>,
    /// The address it was sent to.
    pub(crate) pool: Arc<ResolvedPool>,
    /// The name the client called this gateway by, if the upstream got another `Host`.
    pub(crate) public: Option<PublicIdentity>,
}

/// The mesh's verdicts on the responses of one backend: see
/// [`MeshIngress::verdicts`](crate::MeshIngress::verdicts).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TargetVerdicts {
    /// The name of the route.
    pub route: Arc<str>,
    /// The Service.
    pub service: ServiceRef,
    /// Responses that came through the mesh.
    pub meshed: u64,
    /// Responses that bypassed the mesh.
    pub passthrough: u64,
    /// Responses without a mark of either.
    pub unknown: u64,
}

/// The counters behind [`TargetVerdicts`].
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Verdicts {
    meshed: AtomicU64,
    /// The last response was meshed.
    was_meshed: AtomicBool,
    passthrough: AtomicU64,
    unknown: AtomicU64,
}

/// A response bypassed the mesh, and `require_mesh` is on.
#[derive(Debug, thiserror::Error)]
#[error(
    "a response of {service} should have come through the mesh and was found to be {verdict}: \
     does its pod still have a sidecar, and does a virtual host of the mesh list {host:?}?"
)]
struct NotMeshed {
    service: ServiceRef,
    verdict: &'static str,
    host: String,
}

impl ResponseContext {
    /// Reports an address that does not answer to the resolver, which may know a newer one.
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

    /// Counts the mesh's verdict, restores the public identity and removes the fields that are not for
    /// the client.
    ///
    /// # Errors
    /// When the response bypassed the mesh and `require_mesh` is on.
    pub(crate) fn succeeded(&self, response: &mut Response<ResponseBody>) -> Result<(), Error> {
        let settings = &self.target.settings;
        if self.pool.is_spread {
            self.target.watch.report_success(self.addr());
        }
        let presence = response.body().header_presence().copied();
        let mut presence = presence.unwrap_or_else(|| HeaderPresence::of(response.headers()));
        let verdict = settings.verdict.judge_with(response.headers(), &presence);
        let first_unmeshed = self.target.verdicts.count(verdict);
        if first_unmeshed {
            tracing::warn!(
                route = &*self.target.route,
                service = %self.target.watch.service(),
                %verdict,
                "a response that should have come through the mesh did not"
            );
        }
        // A missing mark counts against a backend only if its earlier responses had one.
        let refused = match verdict {
            Verdict::Meshed => false,
            Verdict::Passthrough => true,
            _ => self.target.verdicts.ever_meshed(),
        };
        if settings.require_mesh && refused {
            let host = self.target.vhost.as_ref().map(ToString::to_string);
            let error = NotMeshed {
                service: self.target.watch.service().clone(),
                verdict: verdict.as_str(),
                host: host.unwrap_or_default(),
            };
            return Err(Error::new(ErrorKind::DestinationUnavailable, error)
                .with_status(http::StatusCode::BAD_GATEWAY));
        }
        let status = response.status();
        let headers = response.headers_mut();
        if presence.may_name_hosts()
            && let (Some(public), Some(vhost)) = (&self.public, &self.target.vhost)
        {
            restore(
                headers,
                vhost,
                self.pool.connections.upstream().addresses(),
                public,
            );
        }
        settings.response.apply_with(status, headers, &mut presence);
        if settings.verdict_extension {
            response.extensions_mut().insert(verdict);
        }
        Ok(())
    }

    fn addr(&self) -> SocketAddr {
        self.pool.connections.upstream().addr()
    }
}

impl Verdicts {
    /// Counts a response. Returns whether it is the first unmeshed one after a meshed one.
    fn count(&self, verdict: Verdict) -> bool {
        let counter = match verdict {
            Verdict::Meshed => &self.meshed,
            Verdict::Passthrough => &self.passthrough,
            _ => &self.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let meshed = verdict == Verdict::Meshed;
        // Written only when it changes, because every worker reads this flag.
        let was_meshed = self.was_meshed.load(Ordering::Relaxed);
        was_meshed != meshed && self.was_meshed.swap(meshed, Ordering::Relaxed) && !meshed
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
