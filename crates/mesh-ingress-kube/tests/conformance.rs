//! The cases of the ingress-controller-conformance suite, looked up in the route table.
#![allow(clippy::unwrap_used)]

use http::{HeaderMap, Method};
use mesh_ingress_kube::from_yaml;
use mesh_ingress_route::{RouteQuery, RouteTable};

#[track_caller]
fn check(manifest: &str, rows: &[(&str, &str, Option<&str>)]) {
    let routes = from_yaml(manifest).unwrap().routes;
    let services = routes
        .iter()
        .map(|route| route.backends()[0].service().name().to_owned());
    let services: Vec<_> = services.collect();
    let table = RouteTable::new(routes.into_iter().zip(services)).unwrap();
    let headers = HeaderMap::new();
    for (host, path, wanted) in rows {
        let uri = path.parse().unwrap();
        let query = RouteQuery::new(host, &Method::GET, &uri, &headers);
        let found = table.find(&query).map(|name| &**name);
        assert_eq!(found, *wanted, "http://{host}{path}");
    }
}

#[test]
fn path_rules() {
    let exact = "exact-path-rules";
    let prefix = "prefix-path-rules";
    let mixed = "mixed-path-rules";
    let slash = "trailing-slash-path-rules";
    check(
        include_str!("manifests/path-rules.yaml"),
        &[
            // "An Ingress with exact path rules should send traffic to the matching backend service"
            (exact, "/foo", Some("foo-exact")),
            (exact, "/foo/", None),
            (exact, "/FOO", None),
            (exact, "/bar", None),
            // "… with prefix path rules …"
            (prefix, "/foo", Some("foo-prefix")),
            (prefix, "/foo/", Some("foo-prefix")),
            (prefix, "/FOO", None),
            // "… with prefix path rules should send traffic to the longest matching path"
            (prefix, "/aaa/bbb", Some("aaa-slash-bbb-prefix")),
            (prefix, "/aaa/bbb/ccc", Some("aaa-slash-bbb-prefix")),
            (prefix, "/aaa/ccc", Some("aaa-prefix")),
            (prefix, "/aaaccc", None),
            // "… with mixed path rules should send traffic to the exact path type first"
            (mixed, "/foo", Some("foo-exact")),
            (mixed, "/foo/bar", Some("foo-prefix")),
            // "… with a trailing slash …"
            (slash, "/aaa/bbb", Some("aaa-slash-bbb-slash-prefix")),
            (slash, "/aaa/bbb/", Some("aaa-slash-bbb-slash-prefix")),
            (slash, "/foo", None),
            (slash, "/foo/", Some("foo-slash-exact")),
        ],
    );
}

#[test]
fn host_rules() {
    check(
        include_str!("manifests/host-rules.yaml"),
        &[
            ("foo.bar.com", "/", Some("foo-bar-com")),
            ("foo.bar.com:8080", "/", Some("foo-bar-com")),
            ("subdomain.bar.com", "/", None),
            ("bar.foo.com", "/", Some("wildcard-foo-com")),
            ("baz.bar.foo.com", "/", None),
            ("foo.com", "/", None),
        ],
    );
}

#[test]
fn default_backend() {
    check(
        include_str!("manifests/default-backend.yaml"),
        &[
            ("my-host", "/", Some("echo-service")),
            ("my-host", "/sub-path", Some("echo-service")),
            ("some-host", "/", Some("echo-service")),
            ("", "/resource", Some("echo-service")),
            ("docs.example.com", "/v1/x", Some("docs")),
            ("docs.example.com", "/v2", Some("docs-missing")),
        ],
    );
}
