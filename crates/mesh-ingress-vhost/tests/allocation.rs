//! A response without internal names costs no allocation.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use allocation_counter::measure;
use http::header::{HeaderMap, HeaderValue, LOCATION};
use mesh_ingress_core::{Scheme, Vhost};
use mesh_ingress_vhost::{PublicIdentity, restore};

fn response() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "text/html"),
        ("location", "https://shop.example.com/a"),
        ("content-location", "/a"),
        ("refresh", "5; url=http://10.96.0.8/"),
        (
            "link",
            "</a.css>; rel=preload, <https://cdn.example.net/>; title=\"<x>\"",
        ),
        ("set-cookie", "a=1; Path=/; Domain=example.com; Secure"),
        ("set-cookie", "b=2"),
        ("access-control-allow-origin", "https://partner.example.net"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn only_changed_values_allocate() {
    let vhost: Vhost = "web.default.svc.cluster.local".parse().unwrap();
    let addresses: [SocketAddr; 1] = ["10.96.0.7:80".parse().unwrap()];
    let host = HeaderValue::from_static("shop.example.com");
    let public = PublicIdentity::new(Scheme::Https, host);
    let mut headers = response();
    let allocations = measure(|| restore(&mut headers, &vhost, &addresses, &public));
    assert_eq!(allocations.count_total, 0);
    assert_eq!(headers, response());

    let internal = "http://web.default.svc.cluster.local/a";
    headers.insert(LOCATION, HeaderValue::from_static(internal));
    let allocations = measure(|| restore(&mut headers, &vhost, &addresses, &public));
    assert!(
        (1..=3).contains(&allocations.count_total),
        "{allocations:?}"
    );
    assert_eq!(headers, response());
}
