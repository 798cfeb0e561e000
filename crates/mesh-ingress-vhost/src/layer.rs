//! The rewriting as a tower layer.

use std::task::{Context, Poll};

use http::{Request, Response};
use mesh_ingress_core::{Protocol, Upstream, Vhost};
use tower_layer::Layer;
use tower_service::Service;

use crate::future::{ResponseFuture, Restoring};
use crate::{PublicIdentity, rewrite_host};

/// Applies [`UpstreamVhost`] to services. See the [crate documentation](crate).
#[derive(Clone, Debug)]
pub struct UpstreamVhostLayer {
    vhost: Option<Vhost>,
    restore: bool,
}

impl UpstreamVhostLayer {
    /// Says `vhost`, whatever the client said.
    #[must_use]
    pub fn new(vhost: Vhost) -> Self {
        Self {
            vhost: Some(vhost),
            restore: true,
        }
    }

    /// Leaves what the client said alone.
    #[must_use]
    pub fn preserve() -> Self {
        Self {
            vhost: None,
            restore: true,
        }
    }

    /// Whether responses that name the vhost get the public identity back, as
    /// [`restore`](crate::restore) does it. Default on; without a vhost there is nothing to do.
    ///
    /// The addresses that count as the inside are those of the [`Upstream`] extension, of the
    /// request as it comes here or of the response; without one it is the name alone.
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

/// Sets `Host` and `:authority` of each request, and puts the public identity back on its
/// response. Made by [`UpstreamVhostLayer`].
#[derive(Clone, Debug)]
pub struct UpstreamVhost<S> {
    inner: S,
    vhost: Option<Vhost>,
    restore: bool,
}

impl<S> UpstreamVhost<S> {
    /// The name it says; `None` if it preserves the client's.
    pub fn vhost(&self) -> Option<&Vhost> {
        self.vhost.as_ref()
    }

    /// The service inside.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, for itself.
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
        let restoring = public.map(|public| Restoring {
            said: vhost.clone(),
            public,
            upstream: request.extensions().get::<Upstream>().cloned(),
        });
        // The service inside may speak either version, or find its connection by the URI.
        rewrite_host(&mut request, vhost, Protocol::Alpn);
        ResponseFuture::new(self.inner.call(request), restoring)
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

    /// An upstream that sends clients to an absolute URL made of what it was told.
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
    async fn the_public_identity_is_remembered_and_put_back() {
        let layer = UpstreamVhostLayer::new("web.default.svc.cluster.local".parse().unwrap());
        let asked = |uri: &str| Request::get(uri).header(HOST, "shop.example.com:8443");
        let https = Downstream::new(([203, 0, 113, 7], 1).into()).scheme(Scheme::Https);

        let request = asked("/").extension(https).body(()).unwrap();
        let restored = locations(&layer, request).await;
        assert_eq!(restored, ["https://shop.example.com:8443/there"; 2]);

        // Whoever sends an absolute target is known by that (HTTP/2 :authority).
        let request = asked("https://a.example/").body(()).unwrap();
        let restored = locations(&layer, request).await;
        assert_eq!(restored, ["https://a.example/there"; 2]);

        let said = [
            "http://web.default.svc.cluster.local/there",
            "http://10.96.0.7/there",
        ];
        let off = layer.clone().restore(false);
        assert_eq!(locations(&off, asked("/").body(()).unwrap()).await, said);
        // HTTP/1.0 may come without any authority.
        let nameless = Request::get("/").body(()).unwrap();
        assert_eq!(locations(&layer, nameless).await, said);
    }

    #[tokio::test]
    async fn what_the_request_was_addressed_to_is_inside_too() {
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
