//! The rewriting as a tower layer.

use std::task::{Context, Poll};

use http::Request;
use mesh_ingress_core::Vhost;
use tower_layer::Layer;
use tower_service::Service;

use crate::rewrite;

/// Applies [`UpstreamVhost`] to services. See the [crate documentation](crate).
#[derive(Clone, Debug)]
pub struct UpstreamVhostLayer {
    vhost: Option<Vhost>,
}

impl UpstreamVhostLayer {
    /// Says `vhost`, whatever the client said.
    #[must_use]
    pub fn new(vhost: Vhost) -> Self {
        Self { vhost: Some(vhost) }
    }

    /// Leaves what the client said alone.
    #[must_use]
    pub fn preserve() -> Self {
        Self { vhost: None }
    }
}

impl<S> Layer<S> for UpstreamVhostLayer {
    type Service = UpstreamVhost<S>;

    fn layer(&self, inner: S) -> UpstreamVhost<S> {
        UpstreamVhost {
            inner,
            vhost: self.vhost.clone(),
        }
    }
}

/// Sets `Host` and `:authority` of each request. Made by [`UpstreamVhostLayer`].
#[derive(Clone, Debug)]
pub struct UpstreamVhost<S> {
    inner: S,
    vhost: Option<Vhost>,
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

impl<S, B> Service<Request<B>> for UpstreamVhost<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        if let Some(vhost) = &self.vhost {
            // Uri and headers cannot be borrowed at once through `Request`.
            let mut uri = std::mem::take(request.uri_mut());
            rewrite::set(&mut uri, request.headers_mut(), vhost);
            *request.uri_mut() = uri;
        }
        self.inner.call(request)
    }
}

#[cfg(test)]
mod tests {
    use http::Response;
    use http::header::HOST;
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
}
