//! The tower layer that tells the forwarder where to connect.

use std::task::{Context, Poll};

use http::Request;
use mesh_ingress_core::{Error, Protocol};
use tower_layer::Layer;
use tower_service::Service;

use crate::Watch;
use crate::future::{ResponseFuture, Target};

/// Sends requests to a Service's ClusterIP: what ingress-nginx called `service-upstream`.
///
/// A mesh sees traffic that goes to the address of a *Service*. A gateway that balances over pod
/// addresses by itself goes around it. This layer puts the address of the Service, as its
/// [`Watch`] knows it, into the request as an [`Upstream`](mesh_ingress_core::Upstream) extension,
/// which the forwarder connects to; what `Host` says is another layer's business.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use http::{Request, Response};
/// use mesh_ingress_core::{Error, Protocol, ServiceRef, Upstream};
/// use mesh_ingress_resolve::{ServiceUpstreamLayer, Watch};
/// use tower::{ServiceBuilder, ServiceExt as _};
///
/// let web: ServiceRef = "web.default:80".parse()?;
/// let watch = Watch::fixed(web, Upstream::new("10.96.0.7:80".parse()?));
/// let service = ServiceBuilder::new()
///     .layer(ServiceUpstreamLayer::new(watch).protocol(Protocol::Http2))
///     .service_fn(async |request: Request<()>| {
///         let upstream = request.extensions().get::<Upstream>().cloned();
///         Ok::<_, Error>(Response::new(upstream))
///     });
/// let response = service.oneshot(Request::new(())).await?;
/// let upstream = response.into_body().unwrap();
/// assert_eq!(upstream.addr(), "10.96.0.7:80".parse()?);
/// assert_eq!(upstream.http_protocol(), Protocol::Http2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ServiceUpstreamLayer {
    watch: Watch,
    protocol: Option<Protocol>,
}

impl ServiceUpstreamLayer {
    /// Requests go where the watch says.
    #[must_use]
    pub fn new(watch: Watch) -> Self {
        Self {
            watch,
            protocol: None,
        }
    }

    /// Sets the protocol to speak. Unless set, it is the one of the watch's answer: HTTP/1.1 from
    /// cluster DNS, which knows no other.
    #[must_use]
    pub fn protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = Some(protocol);
        self
    }
}

impl<S> Layer<S> for ServiceUpstreamLayer {
    type Service = ServiceUpstream<S>;

    fn layer(&self, inner: S) -> ServiceUpstream<S> {
        ServiceUpstream {
            inner,
            watch: self.watch.clone(),
            protocol: self.protocol,
        }
    }
}

/// The service that [`ServiceUpstreamLayer`] makes.
///
/// While the target has an answer, a request goes straight on. Only the first requests of a cold
/// target wait, together, for at most the resolver's resolve timeout; a target that cannot be
/// resolved fails at once, and nothing reaches the inner service then.
///
/// The inner service's errors pass. Those that say that nothing could be reached at the address
/// (refused, unroutable, timed out) are [reported](Watch::report_failure) to the watch, too.
#[derive(Clone, Debug)]
pub struct ServiceUpstream<S> {
    inner: S,
    watch: Watch,
    protocol: Option<Protocol>,
}

impl<S> ServiceUpstream<S> {
    /// The watch that says where requests go.
    #[must_use]
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The service behind this one.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Gives the service behind this one back.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for ServiceUpstream<S>
where
    S: Service<Request<B>> + Clone,
    S::Error: Into<Error>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S, B> {
        let target = Target {
            watch: self.watch.clone(),
            protocol: self.protocol,
        };
        match self.watch.pick() {
            Some(Ok(pick)) => target.call(&mut self.inner, request, pick),
            Some(Err(error)) => ResponseFuture::failed(error),
            None => {
                // The clone has not been polled ready, the present one has: the waiting request
                // takes the latter.
                let clone = self.inner.clone();
                let ready = std::mem::replace(&mut self.inner, clone);
                ResponseFuture::waiting(target, ready, request)
            }
        }
    }
}
