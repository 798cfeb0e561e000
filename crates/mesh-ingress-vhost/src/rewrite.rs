//! The rewriting itself, for those who compose without layers.

use http::header::HOST;
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Request, Uri};

use mesh_ingress_core::Vhost;

/// Sets `Host` and the URI's authority to `vhost`.
///
/// Every `Host` line the client sent is replaced by the one (RFC 9112 §3.2 allows exactly one).
/// Path and query stay byte for byte what they were; a URI without a scheme gets `http`. Nothing
/// is allocated: both values were built with the vhost.
pub fn set_vhost(parts: &mut Parts, vhost: &Vhost) {
    set(&mut parts.uri, &mut parts.headers, vhost);
}

/// The same as [`set_vhost`], for a request that is not taken apart.
///
/// ```
/// use mesh_ingress_core::Vhost;
/// use mesh_ingress_vhost::set_request_vhost;
///
/// let vhost: Vhost = "web.default.svc.cluster.local".parse()?;
/// let mut request = http::Request::get("/cart?id=1").header("host", "shop.example.com").body(())?;
/// set_request_vhost(&mut request, &vhost);
/// assert_eq!(request.headers()["host"], "web.default.svc.cluster.local");
/// assert_eq!(request.uri(), "http://web.default.svc.cluster.local/cart?id=1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn set_request_vhost<B>(request: &mut Request<B>, vhost: &Vhost) {
    // Uri and headers cannot be borrowed at once through `Request`.
    let mut uri = std::mem::take(request.uri_mut());
    set(&mut uri, request.headers_mut(), vhost);
    *request.uri_mut() = uri;
}

fn set(uri: &mut Uri, headers: &mut HeaderMap, vhost: &Vhost) {
    headers.insert(HOST, vhost.header_value().clone());

    let mut parts = std::mem::take(uri).into_parts();
    if parts.scheme.is_none() {
        parts.scheme = Some(Scheme::HTTP);
    }
    if parts.path_and_query.is_none() {
        // Only `CONNECT` has a target without a path; it is refused long before. With scheme and
        // authority a URI needs one.
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    parts.authority = Some(vhost.authority().clone());
    // Cannot fail with all three parts there; were it to, the target would be `/`, not the name
    // the client chose.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn rewritten(uri: &str) -> Parts {
        let (mut parts, ()) = Request::get(uri)
            .header(HOST, "shop.example.com")
            .header(HOST, "evil.example.com")
            .body(())
            .unwrap()
            .into_parts();
        set_vhost(
            &mut parts,
            &"web.default.svc.cluster.local".parse().unwrap(),
        );
        parts
    }

    #[test]
    fn one_host_is_left_rfc9112_3_2() {
        let parts = rewritten("/");
        let hosts: Vec<&HeaderValue> = parts.headers.get_all(HOST).iter().collect();
        assert_eq!(hosts, ["web.default.svc.cluster.local"]);
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
            let parts = rewritten(target);
            assert_eq!(parts.uri.to_string(), uri, "{target}");
            assert_eq!(
                parts.uri.authority().unwrap(),
                "web.default.svc.cluster.local",
                "{target}"
            );
        }
    }
}
