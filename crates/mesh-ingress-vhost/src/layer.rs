//! The Host rewrite as a tower layer.

use std::task::{Context, Poll};

use http::{Request, Response};
use mesh_ingress_core::{Protocol, Upstream, Vhost};
use tower_layer::Layer;
use tower_service::Service;

use crate::future::{ResponseFuture, RestoreContext};
use crate::{PublicIdentity, rewrite_host};

/// Applies [`UpstreamVhost`] to services. See the [crate documentation](crate).
#[derive(Clone, Debug)]
pub struct UpstreamVhostLayer {
    vhost: Option<Vhost>,
    restore: bool,
}

impl UpstreamVhostLayer {
    /// Sets `vhost` on every request.
    #[must_use]
    pub fn new(vhost: Vhost) -> Self {
        Self {
            vhost: Some(vhost),
            restore: true,
        }
    }

    /// Preserves the client's `Host` and `:authority`.
    #[must_use]
    pub fn preserve() -> Self {
        Self {
            vhost: None,
            restore: true,
        }
    }

    /// Whether the public identity is restored in responses that name the vhost, by
    /// [`restore`](crate::restore()). Default on; it has no effect without a vhost.
    ///
    /// The addresses of the [`Upstream`] extension of the response, or else of the request, count as
    /// internal, too.
    #[must_use]
    pub fn restore(mut self, on: bool) -> Self {
        self.restore = on;
        self
    }
}

impl<S> Layer<S> for UpstreamVhostLayer {
    type Service = UpstreamVhost<S>;

    fn layer(&self, inner: S) -> UpstreamVhost<S> {
        UpstreamVhost {
            inner,
            vhost: self.vhost.clone(),
            restore: self.restore,
        }
    }
}

/// Sets `Host` and `:authority` of each request, and restores the public identity in its response.
/// Made by [`UpstreamVhostLayer`].
#[derive(Clone, Debug)]
pub struct UpstreamVhost<S> {
    inner: S,
    vhost: Option<Vhost>,
    restore: bool,
}

impl<S> UpstreamVhost<S> {
    /// The vhost it sets; `None` if it preserves the client's.
    pub fn vhost(&self) -> Option<&Vhost> {
        self.vhost.as_ref()
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Unwraps the inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, RB> Service<Request<B>> for UpstreamVhost<S>
where
    S: Service<Request<B>, Response = Response<RB>>,
{
    type Response = Response<RB>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(vhost) = &self.vhost else {
            return ResponseFuture::new(self.inner.call(request), None);
        };
        let public = if self.restore {
            PublicIdentity::of(request.uri(), request.headers(), request.extensions())
        } else {
            None
        };
        let restore = public.map(|public| RestoreContext {
            vhost: vhost.clone(),
            public,
            upstream: request.extensions().get::<Upstream>().cloned(),
        });
        // The inner service may speak either version, or find its connection by the URI.
        rewrite_host(&mut request, vhost, Protocol::Alpn);
        ResponseFuture::new(self.inner.call(request), restore)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{HOST, LOCATION};
    use mesh_ingress_core::{Downstream, Scheme};
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn preserve_touches_nothing() {
        let service =
            UpstreamVhostLayer::preserve().layer(service_fn(|r: Request<()>| async move {
                assert_eq!(r.headers()[HOST], "shop.example.com");
                assert_eq!(r.uri(), "/x");
                Ok::<_, std::convert::Infallible>(Response::new(()))
            }));
        assert!(service.vhost().is_none());
        let request = Request::get("/x")
            .header(HOST, "shop.example.com")
            .body(())
            .unwrap();
        service.oneshot(request).await.unwrap();
    }

    /// An upstream that redirects to an absolute URL made of its `Host`.
    fn redirecting(
        layer: &UpstreamVhostLayer,
    ) -> impl Service<Request<()>, Response = Response<()>, Error = std::convert::Infallible> {
        layer.layer(service_fn(|request: Request<()>| async move {
            let host = request.headers()[HOST].to_str().unwrap();
            let mut response = Response::new(());
            let location = format!("http://{host}/there").parse().unwrap();
            response.headers_mut().insert(LOCATION, location);
            let address = HeaderValue::from_static("http://10.96.0.7/there");
            response.headers_mut().append(LOCATION, address);
            response
                .extensions_mut()
                .insert(Upstream::new(([10, 96, 0, 7], 80).into()));
            Ok(response)
        }))
    }

    async fn locations(layer: &UpstreamVhostLayer, request: Request<()>) -> Vec<HeaderValue> {
        let response = redirecting(layer).oneshot(request).await.unwrap();
        let values = response.headers().get_all(LOCATION).iter();
        values.cloned().collect()
    }

    #[tokio::test]
    async fn public_identity_is_restored_in_the_response() {
        let layer = UpstreamVhostLayer::new("web.default.svc.cluster.local".parse().unwrap());
        let asked = |uri: &str| Request::get(uri).header(HOST, "shop.example.com:8443");
        let https = Downstream::new(([203, 0, 113, 7], 1).into()).scheme(Scheme::Https);

        let request = asked("/").extension(https).body(()).unwrap();
        let restored = locations(&layer, request).await;
        assert_eq!(restored, ["https://shop.example.com:8443/there"; 2]);

        // The authority of an absolute target (HTTP/2 :authority) is the public identity.
        let request = asked("https://a.example/").body(()).unwrap();
        let restored = locations(&layer, request).await;
        assert_eq!(restored, ["https://a.example/there"; 2]);

        let internal = [
            "http://web.default.svc.cluster.local/there",
            "http://10.96.0.7/there",
        ];
        let off = layer.clone().restore(false);
        assert_eq!(
            locations(&off, asked("/").body(()).unwrap()).await,
            internal
        );
        // HTTP/1.0 may have no authority.
        let nameless = Request::get("/").body(()).unwrap();
        assert_eq!(locations(&layer, nameless).await, internal);
    }

    #[tokio::test]
    async fn upstream_address_of_the_request_counts_as_internal() {
        let layer = UpstreamVhostLayer::new("web.default.svc.cluster.local".parse().unwrap());
        let service = layer.layer(service_fn(|_: Request<()>| async {
            let location = "http://10.96.0.8:8080/x";
            Ok::<_, std::convert::Infallible>(
                Response::builder()
                    .header(LOCATION, location)
                    .body(())
                    .unwrap(),
            )
        }));
        let request = Request::get("http://shop.example.com/")
            .extension(Upstream::new(([10, 96, 0, 8], 80).into()))
            .body(())
            .unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.headers()[LOCATION], "http://shop.example.com/x");
    }
}
