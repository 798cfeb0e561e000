//! Where `Host` is rewritten: the only place that sets it, and `:authority`, to an upstream's vhost.

use http::Request;
use http::Uri;
use http::header::HOST;
use http::uri::{PathAndQuery, Scheme};

use mesh_ingress_core::{Protocol, Vhost};

/// Sets `Host` and the URI's authority to `vhost`, for an upstream that speaks `protocol`.
///
/// A single `Host` line replaces all that the client sent (RFC 9112 §3.2 allows exactly one). Path
/// and query keep every byte; a URI without a scheme gets `http`. Nothing is allocated: both values
/// were built with the vhost.
///
/// With [`Protocol::Http1`] a URI without an authority stays as it is, because HTTP/1.1 sends the
/// name in `Host` alone. All other protocols may send `:authority`, which comes from the URI.
///
/// ```
/// use mesh_ingress_core::{Protocol, Vhost};
/// use mesh_ingress_vhost::rewrite_host;
///
/// let vhost: Vhost = "web.default.svc.cluster.local".parse()?;
/// let request = || http::Request::get("/cart?id=1").header("host", "shop.example.com").body(());
///
/// let mut http1 = request()?;
/// rewrite_host(&mut http1, &vhost, Protocol::Http1);
/// assert_eq!(http1.headers()["host"], "web.default.svc.cluster.local");
/// assert_eq!(http1.uri(), "/cart?id=1");
///
/// let mut http2 = request()?;
/// rewrite_host(&mut http2, &vhost, Protocol::Http2);
/// assert_eq!(http2.headers()["host"], "web.default.svc.cluster.local");
/// assert_eq!(http2.uri(), "http://web.default.svc.cluster.local/cart?id=1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn rewrite_host<B>(request: &mut Request<B>, vhost: &Vhost, protocol: Protocol) {
    let host = vhost.header_value().clone();
    request.headers_mut().insert(HOST, host);
    // The common case ends here: to take the URI apart costs more than all the rest.
    if protocol == Protocol::Http1 && request.uri().authority().is_none() {
        return;
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.scheme.is_none() {
        parts.scheme = Some(Scheme::HTTP);
    }
    if parts.path_and_query.is_none() {
        // A URI with scheme and authority needs a path. Only the target of `CONNECT` has none, and
        // `CONNECT` is refused earlier.
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    parts.authority = Some(vhost.authority().clone());
    // All three parts are there, so this cannot fail. If it did, the target would be `/` and not
    // the name the client chose.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const VHOST: &str = "web.default.svc.cluster.local";

    fn rewritten(uri: &str, protocol: Protocol) -> Request<()> {
        let mut request = Request::get(uri)
            .header(HOST, "shop.example.com")
            .header(HOST, "evil.example.com")
            .body(())
            .unwrap();
        rewrite_host(&mut request, &VHOST.parse().unwrap(), protocol);
        request
    }

    #[test]
    fn rfc9112_3_2_one_host_line_remains() {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let request = rewritten("/", protocol);
            let hosts: Vec<&HeaderValue> = request.headers().get_all(HOST).iter().collect();
            assert_eq!(hosts, [VHOST], "{protocol:?}");
        }
    }

    #[test]
    fn every_form_of_target_gets_the_authority() {
        for (target, uri) in [
            ("/", "http://web.default.svc.cluster.local/"),
            (
                "/a%2Fb//c;d?",
                "http://web.default.svc.cluster.local/a%2Fb//c;d?",
            ),
            (
                "http://shop.example.com:8080/x?y=1",
                "http://web.default.svc.cluster.local/x?y=1",
            ),
            (
                "https://shop.example.com",
                "https://web.default.svc.cluster.local/",
            ),
            ("*", "http://web.default.svc.cluster.local*"),
        ] {
            for protocol in [Protocol::Http2, Protocol::SameAsClient, Protocol::Alpn] {
                let request = rewritten(target, protocol);
                assert_eq!(request.uri().to_string(), uri, "{target} {protocol:?}");
                assert_eq!(request.uri().authority().unwrap(), VHOST, "{target}");
            }
        }
    }

    #[test]
    fn http1_keeps_origin_form_and_rewrites_absolute_form() {
        for (target, uri) in [
            ("/a%2Fb//c;d?", "/a%2Fb//c;d?"),
            ("*", "*"),
            (
                "http://shop.example.com:8080/x?y=1",
                "http://web.default.svc.cluster.local/x?y=1",
            ),
        ] {
            let request = rewritten(target, Protocol::Http1);
            assert_eq!(request.uri().to_string(), uri, "{target}");
        }
    }
}
