//! A lookup must not allocate, whatever the outcome.
#![allow(clippy::unwrap_used)]

use http::{HeaderMap, HeaderValue, Method, Uri};
use mesh_ingress_route::{Backend, Miss, Route, RouteQuery, RouteTable, WildcardScope};

fn table() -> RouteTable<usize> {
    let to = |route: Route| route.to("web.default:80".parse().unwrap());
    let mut routes = vec![
        to(Route::any_host().path_prefix("/any")),
        to(Route::host("*.wild.example").path_prefix("/w")),
        to(Route::host("*.many.example").wildcard(WildcardScope::ManyLabels)),
    ];
    for host in 0..200 {
        let host = format!("h{host}.example");
        routes.push(to(Route::host(&*host)));
        routes.push(to(Route::host(&*host).path_prefix("/api/v1")));
        routes.push(to(Route::host(&*host).path_exact("/api/v1/exact")));
        let asking = Route::host(&*host).path_prefix("/api").method(Method::POST);
        routes.push(to(asking.header("x-canary", "always").query("v", "2")));
    }
    RouteTable::new(routes.into_iter().zip(0..)).unwrap()
}

#[test]
fn finding_a_route_does_not_allocate() {
    let table = table();
    let mut headers = HeaderMap::new();
    headers.append("x-canary", HeaderValue::from_static("never"));
    headers.append("x-canary", HeaderValue::from_static("always"));
    let deep = "/api/v1".to_owned() + &"/a".repeat(2000);
    let long_host = "a.".repeat(200) + "example";
    let cases: &[(&str, &str, Result<usize, Miss>)] = &[
        ("H7.Example:8443", "/api/v1/things", Ok(3 + 7 * 4 + 1)),
        ("h7.example.", "/api/v1/exact", Ok(3 + 7 * 4 + 2)),
        ("h7.example", "/api", Ok(3 + 7 * 4 + 3)),
        ("h7.example", &deep, Ok(3 + 7 * 4 + 1)),
        ("a.wild.example", "/w", Ok(1)),
        ("a.b.c.many.example", "/", Ok(2)),
        ("unknown", "/any/x", Ok(0)),
        (&long_host, "/any/x", Ok(0)),
        ("unknown", "/", Err(Miss::NoRoute)),
        ("h7.example", "/api/../x", Err(Miss::DotSegments)),
    ];
    for (host, path, wanted) in cases {
        let root = Uri::default();
        let mut request = RouteQuery::new(host, &Method::POST, &root, &headers);
        request.path = path;
        request.query = Some("a=1&v=2");
        let mut found = None;
        let allocations = allocation_counter::measure(|| {
            let result = table.lookup(&request);
            found = Some(result.map(|(_, index)| *index));
            assert_eq!(
                table.find(&request).copied(),
                result.ok().map(|(_, index)| *index)
            );
        });
        assert_eq!(found.as_ref(), Some(wanted), "{host}{path}");
        assert_eq!(allocations.count_total, 0, "{host}{path}");
    }
}

#[test]
fn picking_a_backend_and_reading_a_name_do_not_allocate() {
    let backends = ["a.x:80", "b.x:80", "c.x:80"]
        .map(|service| Backend::new(service.parse().unwrap()).weight(5));
    let table = table();
    let (route, _) = table.iter().next().unwrap();
    let allocations = allocation_counter::measure(|| {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            assert!(Backend::pick(&backends, random).is_some());
        }
        assert_eq!(route.get_name(), "*/any");
    });
    assert_eq!(allocations.count_total, 0);
}

/// Without this, a broken counter would pass the tests above.
#[test]
fn allocation_counter_counts() {
    let allocations = allocation_counter::measure(|| {
        std::hint::black_box(String::from("x"));
    });
    assert_eq!(allocations.count_total, 1);
}
