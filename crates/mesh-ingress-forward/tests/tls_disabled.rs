//! Without the feature `tls`, a request that asks for TLS is refused and not sent in cleartext.
#![cfg(not(feature = "tls"))]
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::net::{Ipv4Addr, TcpListener};

use http::Request;
use mesh_ingress_core::{Body, ErrorKind, Protocol, Tls, Upstream};
use mesh_ingress_forward::Forwarder;
use support::send;

#[tokio::test]
async fn tls_is_refused_before_anything_is_dialed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let upstream = Upstream::new(listener.local_addr().unwrap());
    let upstream = upstream.tls(Tls::default().with_server_name("web"));
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Alpn] {
        let mut request = Request::get("http://web/").body(Body::empty()).unwrap();
        request
            .extensions_mut()
            .insert(upstream.clone().protocol(protocol));
        let error = send(&Forwarder::default(), request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ProxyConfigurationError);
        let report = error.report().to_string();
        assert!(report.contains("without its feature \"tls\""), "{report}");
        let came = listener.accept().unwrap_err();
        assert_eq!(
            came.kind(),
            std::io::ErrorKind::WouldBlock,
            "something was dialed"
        );
    }
}
