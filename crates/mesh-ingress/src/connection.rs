//! The gateway as seen by one client connection.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Version};
use http_body::Body as HttpBody;
use mesh_ingress_core::{BoxError, Downstream};
use mesh_ingress_forward::ResponseBody;
use mesh_ingress_headers::{
    Client, HeaderPresence, InvalidRequest, PreparedClient, PreparedFields, RequestHost,
};
use tower_service::Service;

use crate::mesh::Inner;
use crate::{MeshIngress, ResponseFuture, request};

/// A [`MeshIngress`] that knows its client, for servers that do not insert a [`Downstream`] into each
/// request. Made by [`MeshIngress::for_connection`].
#[derive(Clone, Debug)]
pub struct MeshConnection {
    mesh: MeshIngress,
    memory: Arc<ConnectionMemory>,
}

/// What a gateway remembers of a client's connection.
#[derive(Debug)]
pub(crate) struct ConnectionMemory {
    /// The gateway that remembers: another one has other policies.
    mesh: Weak<Inner>,
    pub(crate) client: Client,
    pub(crate) host: LastHost,
}

/// What a connection remembers for its next request: parsed hosts, and the prepared fields that tell
/// upstreams about its client.
#[derive(Debug, Default)]
pub(crate) struct LastHost {
    /// The host of the second request: the only host of most connections that have several requests.
    /// A connection with a single request remembers nothing.
    first: OnceLock<RequestHost>,
    last: Mutex<Option<RequestHost>>,
    /// Requests for neither of these since the last hit of `last`.
    misses: AtomicU32,
    /// Holds `None` where the policy has nothing to prepare.
    client: OnceLock<Option<PreparedClient>>,
}

/// Where a request names its host, if it names it exactly once.
#[derive(Clone, Copy)]
enum HostSource<'r> {
    /// `Host`.
    Field(&'r HeaderValue),
    /// `:authority`.
    Authority(&'r str),
}

impl HostSource<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Field(field) => field.as_bytes(),
            Self::Authority(authority) => authority.as_bytes(),
        }
    }
}

impl LastHost {
    /// The host of a request.
    pub(crate) fn of<B>(
        &self,
        request: &Request<B>,
        presence: &HeaderPresence,
    ) -> Result<RequestHost, InvalidRequest> {
        let (uri, version) = (request.uri(), request.version());
        let field = request.headers().get(HOST);
        // Named once, in the place where each version names it.
        let source = match (version, uri.authority(), field) {
            (Version::HTTP_11, None, Some(field)) if !presence.repeats_host() => {
                HostSource::Field(field)
            }
            (Version::HTTP_2 | Version::HTTP_3, Some(authority), None) => {
                HostSource::Authority(authority.as_str())
            }
            _ => return RequestHost::of(uri, request.headers(), version),
        };
        if let Some(first) = self.first.get()
            && first.value() == source.as_bytes()
        {
            return Ok(first.clone());
        }
        let misses = self.misses.load(Ordering::Relaxed);
        if should_check_last(misses)
            && let Some(last) = &*self.last()
            && last.value() == source.as_bytes()
        {
            self.misses.store(2, Ordering::Relaxed);
            return Ok(last.clone());
        }
        let host = match source {
            HostSource::Field(field) => RequestHost::of_field(field)?,
            HostSource::Authority(authority) => authority.parse()?,
        };
        match misses {
            0 => {}
            // A concurrent request may set it first, which does no harm.
            1 => {
                let _ = self.first.set(host.detached());
            }
            misses if should_remember(misses) => {
                *self.last() = Some(host.detached());
            }
            _ => {}
        }
        self.misses
            .store(misses.wrapping_add(1).max(1), Ordering::Relaxed);
        Ok(host)
    }

    fn last(&self) -> MutexGuard<'_, Option<RequestHost>> {
        // A panic cannot leave it half-written, so a poisoned lock is still good.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The prepared fields for a request of this client, if the request can use them. `prepare` makes
    /// them.
    pub(crate) fn prepared(
        &self,
        presence: &HeaderPresence,
        version: Version,
        host: &RequestHost,
        prepare: impl FnOnce() -> Option<PreparedClient>,
    ) -> Option<PreparedFields> {
        let once;
        let client = match self.client.get() {
            Some(client) => client,
            // Nothing is kept before the second request.
            None if self.first.get().is_none() => {
                once = prepare();
                &once
            }
            None => self.client.get_or_init(prepare),
        };
        let client = client.as_ref();
        let client = client.filter(|client| client.fits(presence, version))?;
        Some(client.for_host(host))
    }
}

/// A load balancer may ask for a thousand hosts in turn on one connection. To remember each of them
/// would cost more than to parse the next.
fn should_remember(misses: u32) -> bool {
    misses < 10 || misses.is_multiple_of(32)
}

/// Whether the previous request was remembered: a repeated host repeats at once.
fn should_check_last(misses: u32) -> bool {
    misses > 1 && should_remember(misses - 1)
}

impl ConnectionMemory {
    pub(crate) fn new(mesh: &Arc<Inner>, downstream: &Downstream) -> Self {
        Self {
            mesh: Arc::downgrade(mesh),
            client: Client::new(downstream),
            host: LastHost::default(),
        }
    }

    /// What this gateway remembers of the connection; `None` if another one was first.
    #[inline]
    pub(crate) fn of<'d>(mesh: &Arc<Inner>, downstream: &'d Downstream) -> Option<&'d Self> {
        let memory = downstream.memo(|| Self::new(mesh, downstream));
        memory.filter(|memory| memory.mesh.as_ptr() == Arc::as_ptr(mesh))
    }
}

impl MeshConnection {
    pub(crate) fn new(mesh: MeshIngress, downstream: &Downstream) -> Self {
        let memory = Arc::new(ConnectionMemory::new(mesh.inner(), downstream));
        Self { mesh, memory }
    }

    /// Serves one request of this connection.
    pub fn handle<B>(&self, request: Request<B>) -> ResponseFuture<B>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        request::dispatch(self.mesh.inner(), Some(&self.memory), request)
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
    fn remembered_host_is_used_only_for_requests_that_name_it() {
        let last = LastHost::default();
        for number in (0..300).flat_map(|number| [0, number % 3, 7, number]) {
            let host = format!("Shop-{number}.example.com");
            let request = Request::builder().header(HOST, &host).body(()).unwrap();
            let presence = HeaderPresence::of(request.headers());
            let found = last.of(&request, &presence).unwrap();
            assert_eq!(found.as_str(), host);
            assert_eq!(found.canonical_host(), host.to_lowercase());
        }
        assert!(last.first.get().is_some() && last.last().is_some());
    }

    /// Remembered hosts give the same result as [`RequestHost::of`].
    #[test]
    fn invalid_host_is_refused_for_the_same_reason_every_time() {
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
            let presence = HeaderPresence::of(request.headers());
            let found = last.of(&request, &presence);
            let parsed = RequestHost::of(request.uri(), request.headers(), version);
            assert_eq!(found, parsed, "{host} {version:?}");
        }
    }

    #[test]
    fn repeated_host_is_remembered_soon_after_a_thousand_others() {
        let last = LastHost::default();
        let ask = |number: u32| {
            let host = format!("shop-{number}.example.com");
            let request = Request::builder().header(HOST, &host).body(()).unwrap();
            let presence = HeaderPresence::of(request.headers());
            assert_eq!(last.of(&request, &presence).unwrap().as_str(), host);
            last.misses.load(Ordering::Relaxed)
        };
        (0..1000).for_each(|number| assert_eq!(ask(number), number + 1));
        let late = (0..100).filter(|_| ask(7) > 2).count();
        assert!(late <= 32, "{late}");
    }

    #[test]
    fn few_of_a_thousand_hosts_are_remembered() {
        let remembered: Vec<u32> = (2..200).filter(|misses| should_remember(*misses)).collect();
        assert_eq!(
            remembered,
            [2, 3, 4, 5, 6, 7, 8, 9, 32, 64, 96, 128, 160, 192]
        );
    }
}
