//! Explains what the gateway would do with a request, for operators and for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, StatusCode};
use mesh_ingress_core::{Error, Protocol, ServiceRef, Tls, Vhost};
use mesh_ingress_headers::Client;

use crate::mesh::Inner;
use crate::request::{Decision, RoutedRequest, decide};

/// What the gateway would do with a request. Made by
/// [`MeshIngress::explain`](crate::MeshIngress::explain); `Display` writes it for humans.
#[derive(Debug)]
#[non_exhaustive]
pub enum Explanation {
    /// It is sent to one of these backends: one, unless the route has weights.
    Forward(Vec<BackendExplanation>),
    /// The gateway answers it: a redirect, or a route with a status.
    Answer {
        /// The status of the answer.
        status: StatusCode,
        /// The `Location` of a redirect.
        location: Option<HeaderValue>,
    },
    /// The gateway refuses it.
    Refuse(Error),
}

/// One backend of an [`Explanation`].
#[derive(Debug)]
#[non_exhaustive]
pub struct BackendExplanation {
    /// The name of the route.
    pub route: Arc<str>,
    /// The Service.
    pub service: ServiceRef,
    /// What `Host` / `:authority` is set to; `None` if the client's is kept.
    pub vhost: Option<Vhost>,
    /// The addresses of the Service; `None` before the first DNS answer.
    pub addresses: Option<Result<Vec<SocketAddr>, Error>>,
    /// How long ago DNS confirmed the address.
    pub age: Option<Duration>,
    /// The protocol spoken to it. Addresses, protocol and TLS are the key of the connection pool.
    pub protocol: Protocol,
    /// The TLS profile and the expected server name; `None` is cleartext.
    pub tls: Option<Arc<Tls>>,
    /// The request target as it is sent.
    pub target: String,
    /// The header fields that differ from the client's.
    pub headers: Vec<HeaderChange>,
}

/// A header field that differs between the client's request and the one that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderChange {
    /// The name of the field.
    pub name: String,
    /// Its values in the client's request; empty if the field is added.
    pub before: Vec<HeaderValue>,
    /// Its values as they are sent; empty if the field is removed.
    pub after: Vec<HeaderValue>,
}

pub(crate) fn explain<B>(inner: &Inner, client: &Client, request: &Request<B>) -> Explanation {
    let mut backends = Vec::new();
    loop {
        let index = backends.len();
        let mut last = true;
        let mut sent = head(request);
        let decision = decide(inner, client, None, &mut sent, |prepared, route| {
            let targets = prepared.targets();
            last = index + 1 >= targets.len();
            targets.get(index).or_else(|| prepared.pick(route))
        });
        match decision {
            Err(error) => return Explanation::Refuse(error),
            Ok(Decision::Answer(response)) => {
                return Explanation::Answer {
                    status: response.status(),
                    location: response.headers().get(http::header::LOCATION).cloned(),
                };
            }
            Ok(Decision::Forward(routed)) => {
                backends.push(backend(request.headers(), &sent, &routed));
            }
        }
        if last {
            return Explanation::Forward(backends);
        }
    }
}

fn head<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    head
}

fn backend(received: &HeaderMap, sent: &Request<()>, routed: &RoutedRequest) -> BackendExplanation {
    let target = &routed.target;
    let uri = sent.uri();
    let resolved = target.watch.get();
    BackendExplanation {
        route: Arc::clone(&target.route),
        service: target.watch.service().clone(),
        vhost: target.vhost.clone(),
        addresses: resolved.map(|found| found.map(|upstream| upstream.addresses().to_vec())),
        age: target.watch.age(),
        protocol: target.protocol,
        tls: target.tls.clone(),
        target: uri
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .to_owned(),
        headers: changes(received, sent.headers()),
    }
}

fn changes(before: &HeaderMap, after: &HeaderMap) -> Vec<HeaderChange> {
    let names: BTreeMap<&str, ()> = before
        .keys()
        .chain(after.keys())
        .map(|name| (name.as_str(), ()))
        .collect();
    let values = |headers: &HeaderMap, name: &str| -> Vec<HeaderValue> {
        headers.get_all(name).iter().cloned().collect()
    };
    names
        .into_keys()
        .map(|name| HeaderChange {
            name: name.to_owned(),
            before: values(before, name),
            after: values(after, name),
        })
        .filter(|change| change.before != change.after)
        .collect()
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forward(backends) => {
                for (number, backend) in backends.iter().enumerate() {
                    if number > 0 {
                        writeln!(f)?;
                    }
                    backend.fmt(f)?;
                }
                Ok(())
            }
            Self::Answer { status, location } => {
                write!(f, "answered here: {status}")?;
                match location {
                    Some(location) => write!(f, ", to {location:?}"),
                    None => Ok(()),
                }
            }
            Self::Refuse(error) => write!(f, "refused: {}", error.report()),
        }
    }
}

impl fmt::Display for BackendExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "route     {}", self.route)?;
        writeln!(f, "service   {}", self.service)?;
        match &self.vhost {
            Some(vhost) => writeln!(f, "vhost     {vhost}")?,
            None => writeln!(f, "vhost     (the client's)")?,
        }
        match &self.addresses {
            None => writeln!(f, "address   not resolved yet")?,
            Some(Err(error)) => writeln!(f, "address   none: {}", error.report())?,
            Some(Ok(addresses)) => {
                write!(f, "address  ")?;
                for address in addresses {
                    write!(f, " {address}")?;
                }
                if let Some(age) = self.age {
                    write!(f, ", confirmed {:.1} s ago", age.as_secs_f64())?;
                }
                writeln!(f)?;
            }
        }
        writeln!(f, "protocol  {}", self.protocol.as_str())?;
        write!(f, "target    {}", self.target)?;
        for change in &self.headers {
            for value in &change.before {
                write!(f, "\n- {}: {}", change.name, text(value))?;
            }
            for value in &change.after {
                write!(f, "\n+ {}: {}", change.name, text(value))?;
            }
        }
        Ok(())
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}
