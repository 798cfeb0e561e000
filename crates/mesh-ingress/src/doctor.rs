//! Diagnoses why requests bypass the mesh.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use http::{Method, Request, StatusCode};
use mesh_ingress_core::{Body, Error, ErrorKind, ServiceRef, Upstream, Verdict, Vhost};
use mesh_ingress_headers::ConnectionOptions;
use mesh_ingress_vhost::rewrite_host;

use crate::mesh::Inner;
use crate::table::Target;

/// How serious a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Health {
    /// As it should be.
    Good,
    /// It may be as it should be; an operator should check.
    Doubtful,
    /// Requests fail or bypass the mesh.
    Bad,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Doubtful => "doubtful",
            Self::Bad => "bad",
        })
    }
}

/// The result of one check. Made by [`MeshIngress::doctor`](crate::MeshIngress::doctor).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How serious it is.
    pub health: Health,
    /// The Service it is about; `None` for the gateway itself.
    pub service: Option<ServiceRef>,
    /// What was found and, if it is not good, the likely cause.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8}  ", self.health)?;
        match &self.service {
            Some(service) => write!(f, "{service}: ")?,
            None => f.write_str("gateway: ")?,
        }
        f.write_str(&self.message)
    }
}

pub(crate) async fn examine(inner: &Inner) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(ready) = sidecar_ready(inner).await {
        findings.push(match ready {
            Ok(()) => good(None, "the proxy of the mesh beside this gateway is ready"),
            Err(error) => bad(
                None,
                format!(
                    "the proxy of the mesh beside this gateway is not ready: is it injected into \
                     this pod? ({})",
                    error.report()
                ),
            ),
        });
    }
    let table = inner.table.load_full();
    let mut seen = HashSet::new();
    for (route, prepared) in table.iter() {
        for target in prepared.targets() {
            // The `Host` of this route's requests: the vhost, or the client's. A wildcard names no
            // host; the probe then sends the address.
            let public = || route.get_host().parse().ok();
            let host: Option<Vhost> = target.vhost.clone().or_else(public);
            if seen.insert((
                target.watch.service().clone(),
                host.clone(),
                target.protocol,
                target.tls.clone(),
            )) {
                examine_target(inner, target, host.as_ref(), &mut findings).await;
            }
        }
    }
    findings
}

/// Whether the proxy beside this gateway is ready, if there is one to ask.
pub(crate) async fn sidecar_ready(inner: &Inner) -> Option<Result<(), Error>> {
    let (addr, path) = inner.settings.mesh.ready_probe()?;
    let request = Request::get(format!("http://{addr}{path}")).body(Body::empty());
    let request = request.unwrap_or_default();
    let pool = inner.settings.forwarder.pool(&Upstream::new(addr));
    let answered = pool.send(request, &ConnectionOptions::default()).await;
    Some(answered.and_then(|response| {
        if response.status() == StatusCode::OK {
            return Ok(());
        }
        let outcome = format!("{addr}{path} answered {}", response.status());
        Err(Error::new(ErrorKind::DestinationUnavailable, outcome))
    }))
}

async fn examine_target(
    inner: &Inner,
    target: &Arc<Target>,
    host: Option<&Vhost>,
    findings: &mut Vec<Finding>,
) {
    let service = Some(target.watch.service().clone());
    if target.vhost.is_none() {
        findings.push(doubtful(
            service.clone(),
            "the client's Host is kept: an Istio sidecar with a port named http-… finds no virtual \
             host for it and lets the request out of the mesh; safe in ambient mode and on unnamed \
             ports",
        ));
    }
    let upstream = match target.watch.ready().await {
        Ok(upstream) => target.upstream(upstream),
        Err(error) => {
            findings.push(bad(service, error.report().to_string()));
            return;
        }
    };
    let addresses: Vec<_> = upstream
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect();
    let resolved = format!("resolves to {}", addresses.join(", "));
    findings.push(good(service.clone(), resolved));
    findings.push(probe(inner, host, &upstream, service).await);
}

/// Sends a `HEAD /`, which changes nothing, on the path of the route's requests.
async fn probe(
    inner: &Inner,
    host: Option<&Vhost>,
    upstream: &Upstream,
    service: Option<ServiceRef>,
) -> Finding {
    let addr = upstream.addr();
    let request = Request::builder()
        .method(Method::HEAD)
        .uri(format!("http://{addr}/"));
    let mut request = request.body(Body::empty()).unwrap_or_default();
    if let Some(host) = host {
        rewrite_host(&mut request, host, upstream.http_protocol());
    }
    let pool = inner.settings.forwarder.pool(upstream);
    let response = match pool.send(request, &ConnectionOptions::default()).await {
        Ok(response) => response,
        Err(error) => {
            return bad(service, format!("HEAD / fails: {}", error.report()));
        }
    };
    let status = response.status();
    let verdict = inner.settings.verdict.judge(response.headers());
    let outcome = format!("HEAD / answers {status}, {verdict}");
    let by_proxy = response
        .headers()
        .contains_key("x-envoy-upstream-service-time");
    match verdict {
        Verdict::Meshed => good(service, outcome),
        Verdict::Passthrough => bad(
            service,
            format!(
                "{outcome}: Host matched no virtual host of the mesh, or the proxy was passed by. Is \
                 the port named http-… and the Service in the mesh's registry? Is traffic to {addr} \
                 captured (excludeOutboundIPRanges, excludeOutboundPorts)?"
            ),
        ),
        _ if status == StatusCode::BAD_GATEWAY && !by_proxy => doubtful(
            service,
            format!(
                "{outcome}: does outboundTrafficPolicy REGISTRY_ONLY block a Host it does not know?"
            ),
        ),
        _ if status == StatusCode::UPGRADE_REQUIRED => bad(
            service,
            format!("{outcome}: a sidecar takes this for HTTP/1.0, which it does not serve"),
        ),
        _ => doubtful(
            service,
            format!("{outcome}: the response has no mark that only a mesh leaves"),
        ),
    }
}

fn good(service: Option<ServiceRef>, message: impl Into<String>) -> Finding {
    finding(Health::Good, service, message)
}

fn doubtful(service: Option<ServiceRef>, message: impl Into<String>) -> Finding {
    finding(Health::Doubtful, service, message)
}

fn bad(service: Option<ServiceRef>, message: impl Into<String>) -> Finding {
    finding(Health::Bad, service, message)
}

fn finding(health: Health, service: Option<ServiceRef>, message: impl Into<String>) -> Finding {
    Finding {
        health,
        service,
        message: message.into(),
    }
}
