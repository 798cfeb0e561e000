//! The gateway as seen by one client connection.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body as HttpBody;
use mesh_ingress_core::BoxError;
use mesh_ingress_forward::ResponseBody;
use mesh_ingress_headers::{
    Client, InvalidRequest, Inventory, PreparedClient, PreparedFields, RequestHost,
};
use tower_service::Service;

use crate::{MeshIngress, ResponseFuture, request};

/// A [`MeshIngress`] that knows its client. Made by [`MeshIngress::for_connection`].
#[derive(Clone, Debug)]
pub struct MeshConnection {
    mesh: MeshIngress,
    client: Client,
    /// What the last request was meant for: as a rule the next one is, too.
    host: Arc<LastHost>,
}

/// Remembers hosts that have been read, and what all requests are told of the client.
#[derive(Debug, Default)]
pub(crate) struct LastHost {
    /// That of the second request, and so the only one of most connections that have several
    /// requests. Those that have one only remember nothing.
    first: OnceLock<RequestHost>,
    last: Mutex<Option<RequestHost>>,
    /// Requests that were for none of these, since `last` was of use.
    missed: AtomicU32,
    /// `None` in it where the policy has nothing to prepare.
    client: OnceLock<Option<PreparedClient>>,
}

/// Whom a request is meant for, said once.
#[derive(Clone, Copy)]
enum Said<'r> {
    /// In `Host`.
    Field(&'r HeaderValue),
    /// In `:authority`.
    Authority(&'r str),
}

impl Said<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Field(field) => field.as_bytes(),
            Self::Authority(authority) => authority.as_bytes(),
        }
    }
}

impl LastHost {
    /// Whom a request is meant for.
    pub(crate) fn of<B>(
        &self,
        request: &Request<B>,
        fields: &Inventory,
    ) -> Result<RequestHost, InvalidRequest> {
        let (uri, version) = (request.uri(), request.version());
        let field = request.headers().get(HOST);
        // Said once, in the place where each version says it.
        let said = match (version, uri.authority(), field) {
            (Version::HTTP_11, None, Some(field)) if !fields.repeats_host() => Said::Field(field),
            (Version::HTTP_2 | Version::HTTP_3, Some(authority), None) => {
                Said::Authority(authority.as_str())
            }
            _ => return RequestHost::of(uri, request.headers(), version),
        };
        if let Some(first) = self.first.get()
            && first.value() == said.as_bytes()
        {
            return Ok(first.clone());
        }
        let missed = self.missed.load(Ordering::Relaxed);
        if is_worth_a_look(missed)
            && let Some(last) = &*self.last()
            && last.value() == said.as_bytes()
        {
            self.missed.store(2, Ordering::Relaxed);
            return Ok(last.clone());
        }
        let host = match said {
            Said::Field(field) => RequestHost::of_field(field)?,
            Said::Authority(authority) => authority.parse()?,
        };
        match missed {
            0 => {}
            // Another request may be first at the same time, which is no matter.
            1 => {
                let _ = self.first.set(host.detached());
            }
            missed if is_worth_remembering(missed) => {
                *self.last() = Some(host.detached());
            }
            _ => {}
        }
        self.missed
            .store(missed.wrapping_add(1).max(1), Ordering::Relaxed);
        Ok(host)
    }

    fn last(&self) -> MutexGuard<'_, Option<RequestHost>> {
        // It is whole at every point where a panic could strike.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is prepared for a request of this client, if it may have that; `prepare` does it.
    pub(crate) fn prepared(
        &self,
        fields: &Inventory,
        version: Version,
        host: &RequestHost,
        prepare: impl FnOnce() -> Option<PreparedClient>,
    ) -> Option<PreparedFields> {
        let once;
        let client = match self.client.get() {
            Some(client) => client,
            // As long as there is no second request, nothing is kept for it.
            None if self.first.get().is_none() => {
                once = prepare();
                &once
            }
            None => self.client.get_or_init(prepare),
        };
        let client = client.as_ref();
        let client = client.filter(|client| client.suit(fields, version))?;
        Some(client.for_host(host))
    }
}

/// The connections of a load balancer may be for a thousand hosts in turn, and to remember each would
/// cost more than to read the next.
fn is_worth_remembering(missed: u32) -> bool {
    missed < 10 || missed.is_multiple_of(32)
}

/// Whether the request before was worth remembering: who comes for the same again comes at once.
fn is_worth_a_look(missed: u32) -> bool {
    missed > 1 && is_worth_remembering(missed - 1)
}

impl MeshConnection {
    pub(crate) fn new(mesh: MeshIngress, client: Client) -> Self {
        Self {
            mesh,
            client,
            host: Arc::default(),
        }
    }

    /// Serves one request of this connection.
    pub fn handle<B>(&self, request: Request<B>) -> ResponseFuture<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        request::dispatch(self.mesh.inner(), &self.client, Some(&self.host), request)
    }
}

impl<B> Service<Request<B>> for MeshConnection
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = ResponseFuture<B>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<B> {
        self.handle(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_remembered_a_request_is_meant_for_whom_it_says() {
        let last = LastHost::default();
        for number in (0..300).flat_map(|number| [0, number % 3, 7, number]) {
            let host = format!("Shop-{number}.example.com");
            let request = Request::builder().header(HOST, &host).body(()).unwrap();
            let fields = Inventory::of(request.headers());
            let found = last.of(&request, &fields).unwrap();
            assert_eq!(found.as_str(), host);
            assert_eq!(found.canonical_host(), host.to_lowercase());
        }
        assert!(last.first.get().is_some() && last.last().is_some());
    }

    /// What is read here is what is read where nothing is remembered.
    #[test]
    fn a_host_is_refused_for_the_same_reason_every_time() {
        let last = LastHost::default();
        let hosts = [
            "shop",
            "a..b",
            "",
            "user@shop",
            "shop:0",
            "1.2.3",
            "[::1]:80",
            "sh op",
            "é",
        ];
        for (host, version) in hosts.iter().cycle().take(4 * hosts.len()).flat_map(|host| {
            [Version::HTTP_11, Version::HTTP_10, Version::HTTP_2].map(|version| (host, version))
        }) {
            let request = Request::builder().version(version);
            let request = match host.parse::<http::uri::Authority>() {
                Ok(authority) if version == Version::HTTP_2 => {
                    let uri = http::Uri::builder().scheme("http").path_and_query("/");
                    request.uri(uri.authority(authority).build().unwrap())
                }
                _ => request.header(HOST, *host),
            };
            let request = request.body(()).unwrap();
            let fields = Inventory::of(request.headers());
            let found = last.of(&request, &fields);
            let alone = RequestHost::of(request.uri(), request.headers(), version);
            assert_eq!(found, alone, "{host} {version:?}");
        }
    }

    /// Whoever comes for one host after a thousand others is soon known.
    #[test]
    fn a_host_that_comes_again_and_again_is_remembered() {
        let last = LastHost::default();
        let ask = |number: u32| {
            let host = format!("shop-{number}.example.com");
            let request = Request::builder().header(HOST, &host).body(()).unwrap();
            let fields = Inventory::of(request.headers());
            assert_eq!(last.of(&request, &fields).unwrap().as_str(), host);
            last.missed.load(Ordering::Relaxed)
        };
        (0..1000).for_each(|number| assert_eq!(ask(number), number + 1));
        let misses = (0..100).filter(|_| ask(7) > 2).count();
        assert!(misses <= 32, "{misses}");
    }

    #[test]
    fn what_is_remembered_of_a_thousand_hosts_is_little() {
        let remembered: Vec<u32> = (2..200)
            .filter(|missed| is_worth_remembering(*missed))
            .collect();
        assert_eq!(
            remembered,
            [2, 3, 4, 5, 6, 7, 8, 9, 32, 64, 96, 128, 160, 192]
        );
    }
}
