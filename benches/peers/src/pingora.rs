//! The crate pingora-proxy, with the same header work.

use std::net::SocketAddr;

use async_trait::async_trait;
use http::header::{HOST, HeaderValue};
use pingora_core::apps::HttpServerOptions;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::{HttpPeer, Peer as _};
use pingora_http::RequestHeader;
use pingora_proxy::{ProxyHttp, Session};

use crate::rewrite::{
    VHOST, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REAL_IP,
    X_REQUEST_ID, request_id,
};
use crate::{BoxError, Settings};

struct Proxy {
    origin: SocketAddr,
    h2_origin: bool,
    port: HeaderValue,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _: &mut Session,
        (): &mut (),
    ) -> pingora_core::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.origin, false, String::new());
        if self.h2_origin
            && let Some(options) = peer.get_mut_peer_options()
        {
            options.set_http_version(2, 2);
        }
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        (): &mut (),
    ) -> pingora_core::Result<()> {
        let request = session.req_header();
        let public = match request.headers.get(HOST) {
            Some(host) => Some(host.clone()),
            None => request
                .uri
                .authority()
                .and_then(|name| HeaderValue::from_str(name.as_str()).ok()),
        };
        if let Some(public) = public {
            upstream.insert_header(X_FORWARDED_HOST, public)?;
        }
        upstream.insert_header(HOST, HeaderValue::from_static(VHOST))?;
        if let Some(client) = session.client_addr().and_then(|addr| addr.as_inet()) {
            let address = client.ip().to_string();
            upstream.insert_header(X_REAL_IP, address.as_str())?;
            upstream.insert_header(X_FORWARDED_FOR, address)?;
        }
        upstream.insert_header(X_FORWARDED_PROTO, HeaderValue::from_static("http"))?;
        upstream.insert_header(X_FORWARDED_PORT, self.port.clone())?;
        upstream.insert_header(X_REQUEST_ID, request_id())
    }
}

pub(crate) fn run(settings: Settings) -> Result<(), BoxError> {
    let conf = ServerConf {
        threads: settings.workers,
        upstream_keepalive_pool_size: 1024,
        // Told to end, it ends.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = Proxy {
        origin: settings.origin,
        h2_origin: settings.h2_origin,
        port: HeaderValue::from(settings.listen.port()),
    };
    let mut service = pingora_proxy::http_proxy_service(&server.configuration, proxy);
    if settings.h2
        && let Some(app) = service.app_logic_mut()
    {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        app.server_options = Some(options);
    }
    service.add_tcp(&settings.listen.to_string());
    server.add_service(service);
    server.run_forever()
}
