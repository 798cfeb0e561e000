//! The crate axum-reverse-proxy, told to do the same header work as far as it has settings for it;
//! the rest is a middleware, as its documentation shows.

use std::net::{SocketAddr, TcpListener};

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum_reverse_proxy::{ProxyPolicy, ReverseProxy, XForwardedFor};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use crate::rewrite::{self, VHOST};
use crate::{BoxError, Settings, legacy_client};

pub(crate) fn run(settings: Settings, listener: TcpListener) -> Result<(), BoxError> {
    crate::current_thread()?.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let client: Client<_, Body> = Client::builder(TokioExecutor::new())
            .http2_only(settings.h2_origin)
            .build(legacy_client::connector(settings.origin));
        let policy = ProxyPolicy::new()
            .with_x_forwarded_for(XForwardedFor::Append)
            .with_public_scheme("http");
        let proxy = ReverseProxy::new_with_client("/", format!("http://{VHOST}"), client)
            .with_policy(policy);
        let port = settings.listen.port();
        let rest = from_fn(
            move |ConnectInfo(peer): ConnectInfo<SocketAddr>, mut request: Request, next: Next| {
                rewrite::Client::new(peer.ip(), port).rewrite_rest(request.headers_mut());
                next.run(request)
            },
        );
        let app: Router = proxy.into();
        let app = app.layer(rest);
        let app = app.into_make_service_with_connect_info::<SocketAddr>();
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(true);
        });
        Ok(axum::serve(listener, app).await?)
    })
}
